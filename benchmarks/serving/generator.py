"""The load generator's process: one job on standard input, its recording in a file.

`python -m benchmarks.serving.generator < job.json`; `load_process` starts it. It watches its own
lag, its own cost and the neighbours.
"""

import gc
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from benchmarks.serving.bodies import Form, Requests, build_requests
from benchmarks.serving.closed_loop import ClosedLoad, ClosedLoop
from benchmarks.serving.images import LabelledImages
from benchmarks.serving.noise import foreign_share, take_snapshot
from benchmarks.serving.open_loop import OpenLoop, OpenLoopLimits
from benchmarks.serving.priority import run_at_once
from benchmarks.serving.recording import Recording
from benchmarks.serving.server import Endpoint
from benchmarks.serving.trace import Trace

_SWITCH_INTERVAL_S: Final = 1.0  # there is one thread
_CLOSED_IMAGES: Final = 512  # sent over and over where there is no trace


class ClosedJob(BaseModel):
    """Clients that wait for their answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_clients: int
    seconds: float
    warm_up_s: float


class Job(BaseModel):
    """One run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int
    path: str
    headers: Mapping[str, str]
    form: Form
    images: Path
    output: Path
    own_sessions: tuple[int, ...]  # whose processor time is not noise
    trace: Path | None  # None: `closed` alone
    run_seconds: float | None = None  # of the trace, from its beginning; None: all
    closed: ClosedJob | None  # before a trace: a warm-up, not recorded
    patience_s: float


class Watched(BaseModel):
    """How the run itself went, printed at its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    foreign_share: float
    elapsed_s: float
    cpu_s: float  # of the generator
    scheduling: str  # of the generator, see `run_at_once`


def main() -> int:
    """Run the job."""
    job = Job.model_validate_json(sys.stdin.buffer.read())
    _take_all_descriptors()
    trace = None if job.trace is None else Trace.read(job.trace)
    if trace is not None and job.run_seconds is not None:
        trace = trace.until(job.run_seconds)
    images = LabelledImages.read(job.images)
    number = min(len(images.labels), _CLOSED_IMAGES)
    wanted = range(number) if trace is None else trace.image_indices.tolist()
    endpoint = Endpoint(job.port, job.path, job.headers)
    requests = build_requests(endpoint, images.pixels, wanted, form=job.form)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.disable()
    scheduling = run_at_once()
    recording, watched = _run(job, requests, trace, scheduling=scheduling)
    recording.write(job.output)
    sys.stdout.write(watched.model_dump_json())
    return 0


def _run(
    job: Job, requests: Requests, trace: Trace | None, *, scheduling: str
) -> tuple[Recording, Watched]:
    warm_up = None if job.closed is None else _closed_loop(requests, job.closed)
    if trace is None:
        loop: OpenLoop | ClosedLoop | None = warm_up
    else:
        if warm_up is not None:
            warm_up.run()
        each = [requests.by_image[i] for i in trace.image_indices.tolist()]
        limits = OpenLoopLimits(patience_s=job.patience_s)
        loop = OpenLoop(requests.port, trace, each, limits)
    if loop is None:
        raise ValueError("a job has a trace, clients, or both")
    pids = {os.getpid(), os.getppid()}
    before = take_snapshot(job.own_sessions, pids)
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    recording = loop.run()
    cpu_s, elapsed_s = time.process_time() - began_cpu_s, time.monotonic() - began_s
    after = take_snapshot(job.own_sessions, pids)
    watched = Watched(
        foreign_share=foreign_share(before, after),
        elapsed_s=elapsed_s,
        cpu_s=cpu_s,
        scheduling=scheduling,
    )
    return recording, watched


def _closed_loop(requests: Requests, closed: ClosedJob) -> ClosedLoop:
    load = ClosedLoad(closed.num_clients, closed.seconds, closed.warm_up_s)
    indices = list(requests.by_image)
    return ClosedLoop(requests.port, list(requests.by_image.values()), indices, load)


def _take_all_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
