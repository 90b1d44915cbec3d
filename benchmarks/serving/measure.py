"""Runs the generator against one server and keeps what came of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving.bodies import Form
from benchmarks.serving.cell import CapacityRecord, Cell, CellRecord
from benchmarks.serving.fleet import Fleet
from benchmarks.serving.generator import ClosedJob, Job
from benchmarks.serving.images import IMAGES_FILE
from benchmarks.serving.judge import OK, judge
from benchmarks.serving.load_process import Run, run_job
from benchmarks.serving.process import resident_bytes
from benchmarks.serving.server import Endpoint
from benchmarks.serving.trace import make_trace

_WARM_UP = ClosedJob(num_clients=8, seconds=0.8, warm_up_s=0.0)
_CLOSED_WARM_UP_S = 0.7
_PATIENCE_DEADLINES = 4  # a client hangs up after that many deadlines, a second at least
_LEAST_PATIENCE_S = 1.0
_RECORDING_FILE = "recording.npz"


@dataclass(frozen=True, slots=True)
class Bench:
    """Where measurements are made."""

    fleet: Fleet
    work: Path
    form: Form
    labels: np.ndarray  # (N,), true class of every image

    @property
    def cells(self) -> Path:
        """Folder of the outcomes."""
        return self.work / "cells"

    @property
    def traces(self) -> Path:
        """Folder of the traces."""
        return self.work / "traces"


def measure_cell(bench: Bench, cell: Cell, *, attempt: int) -> CellRecord:
    """Run one cell and store its outcomes.

    Raises:
        ServerFailed: The server does not start.
        subprocess.CalledProcessError: The generator failed.
    """
    server = bench.fleet.turn_to(cell.server, cell.exit_index)
    trace = _stored_trace(bench, cell)
    patience_s = max(_LEAST_PATIENCE_S, _PATIENCE_DEADLINES * cell.deadline_ms / 1000)
    run = _run(
        bench,
        server.endpoint(cell.deadline_ms),
        trace=trace,
        run_seconds=cell.run_seconds,
        closed=_WARM_UP,
        patience_s=patience_s,
    )
    held_bytes = resident_bytes(server.pid)
    outcomes = judge(
        run.recording,
        server.read,
        bench.labels,
        deadline_ms=cell.deadline_ms,
        seconds=cell.run_seconds,
    )
    file = f"{cell.key}-try{attempt}.npz"
    outcomes.write(bench.cells / file)
    number = max(len(outcomes.statuses), 1)
    lag_ms = outcomes.lag_ms[~np.isnan(outcomes.lag_ms)]
    return CellRecord(
        cell=cell,
        attempt=attempt,
        file=file,
        foreign_share=run.watched.foreign_share,
        send_lag_p99_ms=float(np.percentile(lag_ms, 99)) if len(lag_ms) else 0.0,
        generator_us=1e6 * run.watched.cpu_s / number,
        scheduling=run.watched.scheduling,
        resident_bytes=held_bytes,
    )


def measure_capacity(
    bench: Bench, name: str, exit_index: int | None, *, num_clients: int, seconds: float
) -> CapacityRecord:
    """Return the throughput of clients that wait for their answers, without a deadline.

    Raises:
        ServerFailed: The server does not start, or answers something else than 200.
    """
    server = bench.fleet.turn_to(name, exit_index)
    closed = ClosedJob(num_clients=num_clients, seconds=seconds, warm_up_s=_CLOSED_WARM_UP_S)
    run = _run(bench, server.endpoint(None), closed=closed)
    return CapacityRecord(
        server=name,
        exit_index=exit_index,
        num_clients=num_clients,
        images_per_s=float((run.recording.statuses == OK).sum() / seconds),
        foreign_share=run.watched.foreign_share,
        settings=dict(server.settings),
    )


def _run(
    bench: Bench,
    endpoint: Endpoint,
    *,
    closed: ClosedJob,
    trace: Path | None = None,
    run_seconds: float | None = None,
    patience_s: float = 0.0,
) -> Run:
    job = Job(
        port=endpoint.port,
        path=endpoint.path,
        headers=endpoint.headers,
        form=bench.form,
        images=bench.work / IMAGES_FILE,
        output=bench.work / _RECORDING_FILE,
        own_sessions=bench.fleet.sessions,
        trace=trace,
        run_seconds=run_seconds,
        closed=closed,
        patience_s=patience_s,
    )
    return run_job(job)


def _stored_trace(bench: Bench, cell: Cell) -> Path:
    path = bench.traces / f"{cell.trace_key}.npz"
    if not path.is_file():
        make_trace(cell.load, num_images=len(bench.labels)).write(path)
    return path
