"""Which cells a run has, in which order, and how long they will take."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final

from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.bodies import Form
from benchmarks.serving.cell import Cell, Record
from benchmarks.serving.trace import ArrivalProcess

DEADLINE_MS: Final = 30.0  # of the main grid
OTHER_DEADLINES_MS: Final = (15.0, 100.0)
SUSTAINABLE: Final = 0.8  # of λ₀: the load up to which nearly everything must be in time
CLIENTS: Final = (8, 16, 32, 64, 128)
_CELL_OVERHEAD_S: Final = 2.5  # start of the generator, warm-up, the last answers, judging
_CLOSED_OVERHEAD_S: Final = 2.0
_START_S: Final = 8.0  # of a server
_STATICS_PER_RHO: Final = 2  # that need running, as a rule; see `statics`


class Plan(Record):
    """What a run measures; a work folder belongs to one."""

    servers: tuple[str, ...]  # ours among them
    rhos: tuple[float, ...]
    seconds: float  # of a trace
    repeats: int
    closed_seconds: float  # of a closed loop
    clients: tuple[int, ...]
    other_deadlines_ms: tuple[float, ...]  # ours alone, once
    has_bursts: bool  # ours alone, once
    static_seconds: float  # of a trace that exits as static models run; 0: none are run
    form: Form
    max_foreign_share: float
    max_send_lag_ms: float
    max_attempts: int  # at one cell

    @property
    def has_statics(self) -> bool:
        """Whether every exit of every server is a static model, too."""
        return self.static_seconds > 0

    def estimated_s(self, num_exits: int) -> float:
        """Return how long the run takes if no cell is repeated."""
        # One load more than asked for: the one that can just be sustained.
        num_rhos, num_servers = len(self.rhos) + 1, len(self.servers)
        own = len(self.other_deadlines_ms) + int(self.has_bursts)
        cells = num_rhos * self.repeats * num_servers + len(self.rhos) * own
        closed = num_servers * len(self.clients) + 1
        starts = num_servers
        statics = 0
        if self.has_statics:
            statics = num_rhos * num_servers * _STATICS_PER_RHO
            closed += num_servers * num_exits
            starts += 2 * num_exits * (num_servers - 1)
        return (
            cells * (self.seconds + _CELL_OVERHEAD_S)
            + statics * (self.static_seconds + _CELL_OVERHEAD_S)
            + closed * (self.closed_seconds + _CLOSED_OVERHEAD_S)
            + starts * _START_S
        )


def with_sustainable(rhos: Sequence[float], *, reference_hz: float, lambda_0: float) -> list[float]:
    """Return the loads, and 0.8 λ₀ with them where that is less than twice the reference.

    Args:
        rhos: Offered load ÷ `reference_hz`.
        reference_hz: Best full-depth throughput of any server.
        lambda_0: Throughput of ours at exit 0.
    """
    sustainable = round(SUSTAINABLE * lambda_0 / reference_hz, 2)
    wanted = set(rhos) | ({sustainable} if sustainable < DOUBLE else set())
    return sorted(wanted)


DOUBLE: Final = 2.0  # the overload that the bars speak of


def main_cells(plan: Plan, rhos: Sequence[float], *, reference_hz: float) -> list[Cell]:
    """Return the grid that all servers run, in turns.

    Whoever comes first in one round comes last in another, and no load is tried thrice in a row: a
    drift of the machine hits servers and loads alike.
    """
    cells = []
    for repeat, rho in product(range(plan.repeats), rhos):
        shift = (repeat + rhos.index(rho)) % len(plan.servers)
        for server in plan.servers[shift:] + plan.servers[:shift]:
            load = _cell(plan, rho=rho, rate_hz=rho * reference_hz, repeat=repeat)
            cells.append(load.of(server, None))
    return cells


def own_cells(plan: Plan, *, reference_hz: float) -> list[Cell]:
    """Return what ours alone runs: other deadlines on the first traces, and bursts."""
    cells = []
    for rho in plan.rhos:
        load = _cell(plan, rho=rho, rate_hz=rho * reference_hz, repeat=0)
        cells += [
            load.model_copy(update={"deadline_ms": deadline_ms})
            for deadline_ms in plan.other_deadlines_ms
        ]
        if plan.has_bursts:
            cells.append(load.model_copy(update={"process": ArrivalProcess.BURSTY}))
    return cells


def _cell(plan: Plan, *, rho: float, rate_hz: float, repeat: int) -> Cell:
    return Cell(
        server=OURS,
        exit_index=None,
        process=ArrivalProcess.POISSON,
        deadline_ms=DEADLINE_MS,
        rho=rho,
        rate_hz=round(rate_hz, 3),
        seconds=plan.seconds,
        run_seconds=plan.seconds,
        repeat=repeat,
    )


def left_to_do(cells: Iterable[Cell], done: Iterable[Cell]) -> list[Cell]:
    """Return the cells that are not done, in order."""
    keys = {cell.key for cell in done}
    return [cell for cell in cells if cell.key not in keys]
