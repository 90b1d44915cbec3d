"""What servers can do when nobody hurries them: the yardstick of the offered load."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.cell import CapacityRecord


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The rates that a run refers to, in images a second."""

    reference_hz: float  # ρ = 1: the best full-depth throughput of any server of the run
    reference_server: str
    lambda_0: float  # ours at exit 0


def full_depth(records: Iterable[CapacityRecord], *, num_exits: int) -> list[CapacityRecord]:
    """Return the records of full depth: no exit asked for, or the last."""
    return [r for r in records if r.exit_index is None or r.exit_index == num_exits - 1]


def yardstick(records: Iterable[CapacityRecord], *, num_exits: int) -> Yardstick:
    """Return what the load is measured by.

    Raises:
        ValueError: No full depth was measured, or not ours at exit 0.
    """
    kept = list(records)
    best = max(full_depth(kept, num_exits=num_exits), key=lambda r: r.images_per_s)
    lambda_0 = max(r.images_per_s for r in kept if (r.server, r.exit_index) == (OURS, 0))
    return Yardstick(best.images_per_s, best.server, lambda_0)


def by_exit(records: Iterable[CapacityRecord], server: str, *, num_exits: int) -> dict[int, float]:
    """Return the best throughput of each exit of one server that was measured.

    What serves full depth without being asked for an exit counts for the last one.
    """
    best: dict[int, float] = {}
    for record in records:
        if record.server == server:
            k = num_exits - 1 if record.exit_index is None else record.exit_index
            best[k] = max(best.get(k, 0.0), record.images_per_s)
    return best


def best_clients(records: Iterable[CapacityRecord], server: str) -> int:
    """Return the number of clients at which a server answers most at full depth.

    Raises:
        ValueError: It was not measured.
    """
    mine = [r for r in records if r.server == server and r.exit_index is None]
    return max(mine, key=lambda r: r.images_per_s).num_clients
