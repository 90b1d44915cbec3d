"""A server under closed-loop load, and the processor time that it takes meanwhile."""

import io
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.bodies import CONTENT_TYPES, Form, build_requests, post
from benchmarks.serving.closed_loop import ClosedLoad, ClosedLoop
from benchmarks.serving.noise import foreign_share, take_snapshot
from benchmarks.serving.process import free_port, start_process, stop_process, wait_until_ready
from benchmarks.serving.server import Endpoint

_WARM_UP_S: Final = 1.0
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Period:
    """What a server took, and did, for a while."""

    began_at: float  # monotonic
    ended_at: float
    server_cpu_s: float  # of all its processes
    answers: int
    foreign_share: float  # of the processors' time: neighbours, and what the hypervisor took

    @property
    def answers_per_s(self) -> float:
        """Throughput in requests."""
        return self.answers / (self.ended_at - self.began_at)


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What clients send, over and over."""

    requests: Sequence[bytes]
    num_clients: int
    seconds: float


@dataclass(frozen=True, slots=True)
class MeasuredServer:
    """A running server."""

    port: int
    pid: int

    def endpoint(self, path: str) -> Endpoint:
        """Return where a path is to be had."""
        return Endpoint(self.port, path)

    def under(self, demand: Demand) -> Period:
        """Return what it took while clients asked, each as soon as it had its answer.

        Raises:
            RuntimeError: An answer was no 200.
        """
        self._ask(demand, _WARM_UP_S)
        sessions, ours = (self.pid,), (os.getpid(),)
        before, began_at = take_snapshot(sessions, ours), time.monotonic()
        answers = self._ask(demand, demand.seconds)
        after, ended_at = take_snapshot(sessions, ours), time.monotonic()
        # What this process took is no neighbour's, and not the server's either.
        ticks = sum(
            number - before.own_ticks.get(pid, 0)
            for pid, number in after.own_ticks.items()
            if pid != os.getpid()
        )
        return Period(
            began_at=began_at,
            ended_at=ended_at,
            server_cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
            answers=answers,
            foreign_share=foreign_share(before, after),
        )

    def _ask(self, demand: Demand, seconds: float) -> int:
        load = ClosedLoad(demand.num_clients, seconds, warm_up_s=0.0)
        nobody = [0] * len(demand.requests)
        recording = ClosedLoop(self.port, demand.requests, nobody, load).run()
        refused = np.flatnonzero(recording.statuses != _OK)
        if len(refused):
            body = recording.bodies[int(refused[0])]
            raise RuntimeError(f"the server answered {body[:200]!r}")
        return len(recording.statuses)


@contextmanager
def measured(module: Sequence[str], environment: Mapping[str, str]) -> Iterator[MeasuredServer]:
    """Start a server, wait until it is ready, and stop it at the end.

    Args:
        module: What ``python -m`` runs, with its arguments; it listens on ``ANYTIME_PORT``.
        environment: On top of this process's.

    Raises:
        ServerFailed: It ended or was not ready in time.
    """
    port = free_port()
    own = {"ANYTIME_PORT": str(port), "ANYTIME_LOG_LEVEL": "warning"}
    process = start_process([sys.executable, "-m", *module], {**own, **environment})
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}/health/ready")
        yield MeasuredServer(port, process.pid)
    finally:
        stop_process(process)


def single_requests(endpoint: Endpoint, pixels: NDArray[np.uint8], form: Form) -> list[bytes]:
    """Return a request for each image, pixels ``(N, H, W, 3)``."""
    return list(build_requests(endpoint, pixels, range(len(pixels)), form=form).by_image.values())


def batch_request(endpoint: Endpoint, pixels: NDArray[np.uint8]) -> bytes:
    """Return one request for all images together."""
    body = io.BytesIO()
    np.save(body, pixels)
    return post(endpoint, body.getvalue(), content_type=CONTENT_TYPES[Form.NPY])
