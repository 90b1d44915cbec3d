"""Runs a plan cell by cell, from wherever it was stopped."""

import sys
from collections.abc import Iterable

from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.capacity import Yardstick, best_clients, by_exit, yardstick
from benchmarks.serving.cell import CapacityRecord, Cell, CellRecord
from benchmarks.serving.journal import Journal
from benchmarks.serving.judge import Outcomes
from benchmarks.serving.measure import Bench, measure_capacity, measure_cell
from benchmarks.serving.plan import (
    DEADLINE_MS,
    Plan,
    left_to_do,
    main_cells,
    own_cells,
    with_sustainable,
)
from benchmarks.serving.server import ServerFailed
from benchmarks.serving.statics import by_promise, next_to_run, promise
from benchmarks.serving.trace import ArrivalProcess


class Grid:
    """One run of a plan; owns the journals.

    Args:
        bench: Where to measure.
        plan: What.
        accuracies: Of the exits, on the test images.
    """

    def __init__(self, bench: Bench, plan: Plan, accuracies: tuple[float, ...]) -> None:
        self._bench = bench
        self._plan = plan
        self._accuracies = accuracies
        self._cells = Journal(bench.work / "cells.jsonl", CellRecord)
        self._capacities = Journal(bench.work / "capacities.jsonl", CapacityRecord)
        self._failed: set[str] = set()  # servers that did not start

    def run(self) -> None:
        """Measure everything that is not measured yet."""
        self._measure_full_depth()
        rates = yardstick(self._capacities.read(), num_exits=len(self._accuracies))
        _say(
            f"rho = 1 is {rates.reference_hz:.0f} images/s, {rates.reference_server} at full "
            f"depth; lambda_0 is {rates.lambda_0:.0f}, ours at exit 0"
        )
        rhos = with_sustainable(
            self._plan.rhos, reference_hz=rates.reference_hz, lambda_0=rates.lambda_0
        )
        self._run_cells(main_cells(self._plan, rhos, reference_hz=rates.reference_hz))
        if self._plan.has_statics:
            self._measure_exits()
            for server in self._plan.servers:
                for rho in rhos:
                    self._run_statics(server, rho, rates)
        self._run_cells(own_cells(self._plan, reference_hz=rates.reference_hz))

    def _measure_full_depth(self) -> None:
        for num_clients in self._plan.clients:
            for server in self._plan.servers:
                self._measure_capacity(server, None, num_clients)
        # λ₀ needs the most clients: its requests are the shortest.
        self._measure_capacity(OURS, 0, max(self._plan.clients))

    def _measure_exits(self) -> None:
        for server in self._plan.servers:
            if server not in self._failed:
                num_clients = best_clients(self._capacities.read(), server)
                for k in range(len(self._accuracies)):
                    self._measure_capacity(server, k, num_clients)

    def _measure_capacity(self, server: str, exit_index: int | None, num_clients: int) -> None:
        wanted = (server, exit_index, num_clients)
        done = {(r.server, r.exit_index, r.num_clients) for r in self._capacities.read()}
        if wanted in done or server in self._failed:
            return
        try:
            record = self._quiet_capacity(server, exit_index, num_clients)
        except ServerFailed as failed:
            self._give_up(server, failed)
            return
        self._capacities.append(record)
        _say(
            f"{server} exit {_name(exit_index)}, {num_clients} clients: "
            f"{record.images_per_s:.0f} images/s, {100 * record.foreign_share:.1f} % foreign"
        )

    def _quiet_capacity(
        self, server: str, exit_index: int | None, num_clients: int
    ) -> CapacityRecord:
        """Return the first quiet measurement, or the best of as many as are allowed.

        Neighbours only ever take throughput away.
        """
        records = []
        for _ in range(self._plan.max_attempts):
            record = measure_capacity(
                self._bench,
                server,
                exit_index,
                num_clients=num_clients,
                seconds=self._plan.closed_seconds,
            )
            records.append(record)
            if record.foreign_share <= self._plan.max_foreign_share:
                return record
        return max(records, key=lambda r: r.images_per_s)

    def _run_cells(self, cells: Iterable[Cell]) -> None:
        done = (record.cell for record in self._settled())
        for cell in left_to_do(cells, done):
            self._run_cell(cell)

    def _run_statics(self, server: str, rho: float, rates: Yardstick) -> None:
        """Run the exits that may be best at this load, on the first trace."""
        if server in self._failed:
            return
        rate_hz = rho * rates.reference_hz
        capacities = by_exit(self._capacities.read(), server, num_exits=len(self._accuracies))
        order = by_promise(self._accuracies, capacities, rate_hz)
        promises = {k: promise(self._accuracies[k], capacities[k], rate_hz) for k in order}
        while (k := next_to_run(order, self._static_accuracies(server, rho), promises)) is not None:
            shortened = self._first_cell(rho).shortened(self._plan.static_seconds)
            self._run_cell(shortened.of(server, k))
            if server in self._failed:
                return

    def _static_accuracies(self, server: str, rho: float) -> dict[int, float]:
        """Return what was measured of a server's exits at a load, by exit."""
        measured = {}
        key = self._first_cell(rho).trace_key
        for record in self._settled():
            cell = record.cell
            if (cell.server, cell.trace_key, cell.deadline_ms) != (server, key, DEADLINE_MS):
                continue
            k = cell.exit_index
            if k is None:
                if server == OURS:
                    continue
                k = len(self._accuracies) - 1
            measured[k] = float(self._outcomes(record).is_useful.mean())
        return measured

    def _first_cell(self, rho: float) -> Cell:
        """Return the cell of the grid that a load's first trace was made for."""
        return next(
            r.cell
            for r in self._cells.read()
            if (r.cell.rho, r.cell.repeat, r.cell.process) == (rho, 0, ArrivalProcess.POISSON)
        )

    def _run_cell(self, cell: Cell) -> None:
        tried = sum(r.cell.key == cell.key for r in self._cells.read())
        for attempt in range(tried, self._plan.max_attempts):
            if cell.server in self._failed:
                return
            try:
                record = measure_cell(self._bench, cell, attempt=attempt)
            except ServerFailed as failed:
                self._give_up(cell.server, failed)
                return
            self._cells.append(record)
            self._report(record)
            if self._is_quiet(record):
                return

    def _settled(self) -> list[CellRecord]:
        """Return for every cell its quiet attempt, or its last if it had all its attempts."""
        last = self._plan.max_attempts - 1
        records = self._cells.read()
        return [r for r in records if self._is_quiet(r) or r.attempt == last]

    def _is_quiet(self, record: CellRecord) -> bool:
        return record.is_quiet(self._plan.max_foreign_share, self._plan.max_send_lag_ms)

    def _outcomes(self, record: CellRecord) -> Outcomes:
        return Outcomes.read(self._bench.cells / record.file)

    def _report(self, record: CellRecord) -> None:
        outcomes = self._outcomes(record)
        verdict = "" if self._is_quiet(record) else ", DISCARDED"
        _say(
            f"{record.cell.key}: {100 * outcomes.is_in_time.mean():.2f} % in time, "
            f"{100 * outcomes.is_useful.mean():.2f} % right and in time, "
            f"{100 * record.foreign_share:.1f} % foreign, "
            f"send lag p99 {record.send_lag_p99_ms:.2f} ms{verdict}"
        )

    def _give_up(self, server: str, failed: ServerFailed) -> None:
        # A peer that does not start must not cost the others their run; ours must.
        if server == OURS:
            raise failed
        self._failed.add(server)
        _say(f"{server} is left out: {failed}")


def _name(exit_index: int | None) -> str:
    return "all" if exit_index is None else str(exit_index)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
