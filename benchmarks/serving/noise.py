"""How much of a run's processor time went to others: figures taken among neighbours are theirs.

Read from `/proc/stat` (all processors, with the time a hypervisor took) and `/proc/<pid>/stat`
(what is ours).
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_SHARE: Final = 0.02  # of all processors' time
MAX_SEND_LAG_MS: Final = 1.0  # the generator's 99th percentile

_USER, _NICE, _SYSTEM, _STEAL = 0, 1, 2, 7  # columns of the first line of /proc/stat
_NUM_COLUMNS = 8  # guests' time, which follows, is in user's already
# Fields of /proc/<pid>/stat, counted from behind the name in brackets.
_SESSION, _UTIME, _STIME = 3, 11, 12


@dataclass(frozen=True, slots=True)
class ProcessorTicks:
    """Clock ticks since boot, all processors together."""

    busy: int  # in processes: user, nice and system; interrupts are nobody's
    stolen: int  # by the hypervisor
    total: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where processor time has gone so far."""

    processors: ProcessorTicks
    own_ticks: Mapping[int, int]  # by pid


def take_snapshot(sessions: Collection[int], pids: Collection[int]) -> Snapshot:
    """Read the counters now.

    Args:
        sessions: Whose processes, all of them, are ours.
        pids: Other processes of ours.
    """
    first_line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    own = {}
    for pid in _all_pids():
        fields = _fields_of(pid)
        if fields is not None and (pid in pids or int(fields[_SESSION]) in sessions):
            own[pid] = int(fields[_UTIME]) + int(fields[_STIME])
    return Snapshot(parse_processors(first_line), own)


def parse_processors(line: str) -> ProcessorTicks:
    """Return what the first line of `/proc/stat` says."""
    columns = [int(field) for field in line.split()[1 : 1 + _NUM_COLUMNS]]
    return ProcessorTicks(
        busy=columns[_USER] + columns[_NICE] + columns[_SYSTEM],
        stolen=columns[_STEAL],
        total=sum(columns),
    )


def foreign_share(before: Snapshot, after: Snapshot) -> float:
    """Return stolen time and other processes' as a share of all processors' time between two.

    A process of ours that ended in between counts as another's: a run starts and ends none.
    """
    total = after.processors.total - before.processors.total
    if total <= 0:
        return 0.0
    own = sum(ticks - before.own_ticks.get(pid, 0) for pid, ticks in after.own_ticks.items())
    # Processors' time is sampled, processes' is summed up: a little less than nothing is nothing.
    others = max(after.processors.busy - before.processors.busy - own, 0)
    stolen = after.processors.stolen - before.processors.stolen
    return (others + stolen) / total


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names, not paths


def _fields_of(pid: int) -> list[str] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()
