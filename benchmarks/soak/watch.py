"""What a server holds on to, seen from outside and asked from inside, and whether it grows."""

import json
import os
import re
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from service.engine.admission import Charge

MAX_GROWTH: Final = 0.03  # of resident memory, from the second quarter of a soak to the last
_SLACK_BYTES: Final = 8 * 2**20  # below that growth is an allocator's habit
_CENSUS_LIMIT_S: Final = 10.0
_ATTEMPT_S: Final = 0.05
_SAMPLE: Final = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Holdings:
    """Of one server process at one instant."""

    tasks: int
    threads: int
    places: int  # that admission charged for and nobody gave back
    descriptors: int


def count_holdings(pid: int, census: Path) -> Holdings:
    """Ask a `watched_server` what it holds.

    Raises:
        TimeoutError: It did not answer.
    """
    census.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    given_up_at = time.monotonic() + _CENSUS_LIMIT_S
    while not census.is_file():
        if time.monotonic() > given_up_at:
            raise TimeoutError(f"process {pid} wrote no census within {_CENSUS_LIMIT_S:.0f} s")
        time.sleep(_ATTEMPT_S)
    said = json.loads(census.read_text(encoding="ascii"))
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Holdings(said["tasks"], said["threads"], said["places"], descriptors)


def count_places(objects: Iterable[object]) -> int:
    """Return how many charges of admission are among some objects and were not released."""
    return sum(type(one) is Charge and not one.is_released for one in objects)


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def growth_bytes(samples: Sequence[int]) -> int:
    """Return by how much memory grew after the warm-up: second quarter's median to the last's.

    Args:
        samples: Taken evenly over the soak, four at least.
    """
    quarter = len(samples) // 4
    return round(median(samples[-quarter:]) - median(samples[quarter : 2 * quarter]))


def is_flat(samples: Sequence[int]) -> bool:
    """Whether memory stays where it is once the server is warm."""
    quarter = len(samples) // 4
    allowed = max(_SLACK_BYTES, MAX_GROWTH * median(samples[quarter : 2 * quarter]))
    return growth_bytes(samples) <= allowed


def read_metrics(exposition: str) -> Mapping[str, float]:
    """Return the sum of every family's samples, whatever their labels."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(exposition):
        sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def unsettled(metrics: Mapping[str, float]) -> float:
    """Return how many images were admitted and neither answered nor given up."""
    settled = metrics.get("anytime_exits_total", 0) + metrics.get(
        "anytime_images_unanswered_total", 0
    )
    return metrics.get("anytime_images_admitted_total", 0) - settled
