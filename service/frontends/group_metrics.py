"""One exposition of what several processes count.

Each process writes what it counted into a file of its own, now and then and when it leaves, and
begins where the one before it under the same name had ended. So the sum over all files goes on
rising whoever dies; what a killed process counted since it last wrote is lost.
"""

import asyncio
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

_WRITE_S: Final = 0.25
_SUFFIX: Final = ".json"
_COUNTED: Final = frozenset({"counter", "histogram", "summary"})  # what only rises
_INSTANTS: Final = ("_created", "start_time_seconds")  # of which the earliest is told

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class _Family:
    """One family as several processes have it."""

    name: str
    documentation: str
    type: str
    values: dict[_Key, float] = field(default_factory=dict)

    def add(self, key: _Key, value: float) -> None:
        """Take in a sample: instants by the earliest, all else by its sum."""
        before = self.values.get(key)
        if before is None:
            self.values[key] = value
        elif key[0].endswith(_INSTANTS):
            self.values[key] = min(before, value)
        else:
            self.values[key] = before + value

    def metric(self) -> Metric:
        """Return it as the exposition has it."""
        metric = Metric(self.name, self.documentation, self.type)
        metric.samples = [
            Sample(name, dict(labels), v) for (name, labels), v in self.values.items()
        ]
        return metric


_Families: TypeAlias = dict[str, _Family]


class GroupRegistry(CollectorRegistry):
    """A registry of one process that exposes what all processes of a group count.

    Args:
        folder: Where they write; nobody else does.
        name: Of this process's file; another process later goes on with it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self._path = folder / f"{name}{_SUFFIX}"
        self._before = _counted_only(_read(self._path))

    def collect(self) -> Iterator[Metric]:
        """Yield every family, summed up over the group."""
        families = self._own()
        for path in sorted(self._path.parent.glob(f"*{_SUFFIX}")):
            if path != self._path:
                _merge(families, _read(path).values())
        return (family.metric() for family in families.values())

    def write(self) -> None:
        """Leave what this process counted for the others, who see it whole or not at all."""
        document = [
            [family.name, family.documentation, family.type, list(family.values.items())]
            for family in self._own().values()
        ]
        written = self._path.with_suffix(".new")
        written.write_text(json.dumps({"pid": os.getpid(), "families": document}))
        written.replace(self._path)

    async def keep_written(self) -> None:
        """Write again and again until cancelled."""
        while True:
            self.write()
            await asyncio.sleep(_WRITE_S)

    def _own(self) -> _Families:
        families: _Families = {}
        for metric in super().collect():
            family = families[metric.name] = _Family(metric.name, metric.documentation, metric.type)
            for sample in metric.samples:
                family.add((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        _merge(families, self._before.values())
        return families


def _merge(families: _Families, others: Iterable[_Family]) -> None:
    for other in others:
        family = families.setdefault(
            other.name, _Family(other.name, other.documentation, other.type)
        )
        for key, value in other.values.items():
            family.add(key, value)


def _counted_only(families: _Families) -> _Families:
    return {name: family for name, family in families.items() if family.type in _COUNTED}


def _read(path: Path) -> _Families:
    """Return what a process left; of one that is gone only what it counted, no present state."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    families = {
        name: _Family(name, documentation, kind, {_key(key): value for key, value in values})
        for name, documentation, kind, values in document["families"]
    }
    is_alive = Path(f"/proc/{document['pid']}").exists()
    return families if is_alive else _counted_only(families)


def _key(written: Any) -> _Key:  # noqa: ANN401 - as JSON has it
    name, labels = written
    return name, tuple((label, value) for label, value in labels)
