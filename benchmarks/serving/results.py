"""Everything a work folder holds, looked up by server and load."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.bound import TraceBound
from benchmarks.serving.bound_lines import read_bounds
from benchmarks.serving.capacity import Yardstick, by_exit, yardstick
from benchmarks.serving.cell import CapacityRecord, CellRecord
from benchmarks.serving.journal import Journal
from benchmarks.serving.judge import Outcomes
from benchmarks.serving.plan import DEADLINE_MS, Plan
from benchmarks.serving.summary import Summary, summarise
from benchmarks.serving.trace import ArrivalProcess


@dataclass(frozen=True, slots=True)
class Place:
    """A server under a load, whatever the repeat."""

    server: str
    exit_index: int | None
    rho: float
    deadline_ms: float = DEADLINE_MS
    process: ArrivalProcess = ArrivalProcess.POISSON


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What is known of a place."""

    records: tuple[CellRecord, ...]  # that count, by repeat
    runs: tuple[Outcomes, ...]  # of the records
    summary: Summary
    first: Outcomes  # on the first trace, for pairs: its quiet attempt, else its last
    is_quiet: bool  # False: no attempt was, so all of them count


class Results:
    """A run's results; reads each file once.

    Args:
        work: Its folder.
        plan: What was measured.
        accuracies: Of the exits, on the test images.
    """

    def __init__(self, work: Path, plan: Plan, accuracies: Sequence[float]) -> None:
        self.work = work
        self.plan = plan
        self.accuracies = tuple(accuracies)
        self.capacities = Journal(work / "capacities.jsonl", CapacityRecord).read()
        self.records = Journal(work / "cells.jsonl", CellRecord).read()
        self.bounds: list[TraceBound] = read_bounds(work)
        self._measured: dict[Place, Measured] = {}

    @property
    def num_exits(self) -> int:
        """K."""
        return len(self.accuracies)

    @property
    def yardstick(self) -> Yardstick:
        """What ρ = 1 is."""
        return yardstick(self.capacities, num_exits=self.num_exits)

    @property
    def servers(self) -> tuple[str, ...]:
        """Ours first, then the peers that ran."""
        ran = {record.cell.server for record in self.records}
        return tuple(name for name in self.plan.servers if name in ran)

    @property
    def rhos(self) -> tuple[float, ...]:
        """Loads that ours was measured under."""
        return tuple(sorted({r.cell.rho for r in self.records if r.cell.server == OURS}))

    def is_quiet(self, record: CellRecord) -> bool:
        """Whether an attempt counts."""
        return record.is_quiet(self.plan.max_foreign_share, self.plan.max_send_lag_ms)

    def at(self, place: Place) -> Measured | None:
        """Return what was measured, None where nothing was."""
        if place not in self._measured:
            records = [r for r in self.records if _place_of(r) == place]
            if not records:
                return None
            self._measured[place] = self._measure(records)
        return self._measured[place]

    def static(self, server: str, exit_index: int, rho: float) -> Measured | None:
        """Return an exit as a static model; a peer's full depth is its last exit."""
        found = self.at(Place(server, exit_index, rho))
        if found is None and server != OURS and exit_index == self.num_exits - 1:
            return self.at(Place(server, None, rho))
        return found

    def best_static(self, server: str, rho: float) -> tuple[int, Measured] | None:
        """Return the exit that was best in hindsight, on the beginning of the first trace."""
        found = [(k, self.static(server, k, rho)) for k in range(self.num_exits)]
        known = [(k, m) for k, m in found if m is not None]
        if not known:
            return None
        # A peer's full depth ran for longer than the others: only what all had is compared.
        number = min(len(m.first.statuses) for _, m in known)
        return max(known, key=lambda pair: pair[1].first.is_useful[:number].mean())

    def exit_capacities(self, server: str) -> dict[int, float]:
        """Return the closed-loop throughput of a server's exits."""
        return by_exit(self.capacities, server, num_exits=self.num_exits)

    def bounds_at(self, rho: float, deadline_ms: float = DEADLINE_MS) -> list[TraceBound]:
        """Return the bounds on a load's Poisson traces."""
        poisson = ArrivalProcess.POISSON.value
        names = {f"{poisson}-rho{rho:g}-{i}" for i in range(self.plan.repeats)}
        return [b for b in self.bounds if b.trace in names and b.deadline_ms == deadline_ms]

    def _measure(self, records: Sequence[CellRecord]) -> Measured:
        quiet = {r.cell.key: r for r in records if self.is_quiet(r)}
        kept = list(quiet.values()) or list(records)
        kept.sort(key=lambda r: (r.cell.repeat, r.attempt))
        runs = tuple(Outcomes.read(self.work / "cells" / r.file) for r in kept)
        firsts = [r for r in records if r.cell.repeat == 0] or kept
        first = next((r for r in firsts if self.is_quiet(r)), firsts[-1])
        return Measured(
            records=tuple(kept),
            runs=runs,
            summary=summarise(runs, num_exits=self.num_exits),
            first=Outcomes.read(self.work / "cells" / first.file),
            is_quiet=bool(quiet),
        )


def _place_of(record: CellRecord) -> Place:
    cell = record.cell
    return Place(cell.server, cell.exit_index, cell.rho, cell.deadline_ms, cell.process)
