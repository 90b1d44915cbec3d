"""A peer's server as the grid wants one: `ServerUnderTest` for all of them."""

import io
import json
import math
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import numpy as np

from benchmarks.serving.peers.environments import WORK, interpreter, versions
from benchmarks.serving.peers.settings import SearchResult
from benchmarks.serving.peers.static_graph import stored_graph
from benchmarks.serving.peers.static_model import PeerSpec
from benchmarks.serving.process import free_port, session_pids, start_process, stop_process
from benchmarks.serving.server import Answer, Endpoint, ServerFailed
from model_store.reader import Bundle, open_bundle

_BUNDLE: Final = Path("model_store/bundles/cifar10-msdnet/1")
_PATH: Final = "/classify"
_UNLIMITED: Final = 65_536  # requests waiting, where nothing is given up
_START_LIMIT_S: Final = 60.0
_ATTEMPT_S: Final = 0.1
_END_LIMIT_S: Final = 5.0


class PeerServer:
    """One peer serving the network up to one exit, or up to its last.

    Peers know no deadline of a request, only a time-out and a queue limit of the server: asked for
    another deadline than it was started for, it starts anew.

    Args:
        peer: Its name; `serve_<peer>` is what runs in its environment.
        exit_index: None: the last.
        searched: Its settings.
        bundle: What it serves; None: the default bundle.
    """

    def __init__(
        self,
        peer: str,
        exit_index: int | None,
        *,
        searched: SearchResult,
        bundle: Path | None = None,
    ) -> None:
        self._peer = peer
        self._exit_index = exit_index
        self._searched = searched
        self._bundle = open_bundle(bundle or _BUNDLE)
        self._deadline_ms: float | None = searched.deadline_ms
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._port = 0

    @property
    def name(self) -> str:
        """As it is printed."""
        return self._peer

    @property
    def exit_index(self) -> int | None:
        """The one exit it was asked for."""
        return self._exit_index

    @property
    def settings(self) -> Mapping[str, str]:
        """Its version, what the search chose, and what follows from it for this exit."""
        chosen = {k: str(v) for k, v in self._searched.chosen.model_dump().items()}
        return {
            "version": versions(self._peer)[self._peer],
            "status": self._searched.status,
            **chosen,
            "queue_size": str(self._queue_size(self._searched.deadline_ms)),
        }

    @property
    def pid(self) -> int:
        """Of the process that leads its session.

        Raises:
            ServerFailed: It does not run.
        """
        if self._process is None:
            raise ServerFailed(f"{self._peer} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it and return once every worker is warm and an image was answered.

        Raises:
            ServerFailed: It is not installed, ended, or was not ready in time.
        """
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self._peer}-"))
        spec = self._spec(self._folder)
        module = f"benchmarks.serving.peers.serve_{self._peer}"
        self._process = start_process(
            [str(interpreter(self._peer)), "-m", module],
            {**spec.environment(), "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
            log=WORK / f"{self._peer}.log",
        )
        with ExitStack() as undone:
            undone.callback(self.stop)
            self._wait_until_ready(self._process, spec)
            undone.pop_all()

    def endpoint(self, deadline_ms: float | None) -> Endpoint:
        """Return where to send an image; without a deadline nothing is given up.

        Raises:
            ServerFailed: It had to start anew and did not.
        """
        if deadline_ms != self._deadline_ms:
            self._deadline_ms = deadline_ms
            if self._process is not None:
                self.stop()
                self.start()
        return Endpoint(self._port, _PATH)

    def read(self, body: bytes) -> Answer:
        """Return the label that a 200 says.

        Raises:
            ValueError: It is no answer.
        """
        try:
            label = json.loads(body)["label_index"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"no answer: {body[:200]!r}") from error
        return Answer(int(label), self._exit_index)

    def stop(self) -> None:
        """End every process of it."""
        if self._process is not None:
            stop_process(self._process)
            _wait_for_all(session_pids(self._process.pid))
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _spec(self, folder: Path) -> PeerSpec:
        wanted = self._bundle.manifest.input
        chosen = self._searched.chosen
        return PeerSpec(
            graph=str(stored_graph(self._bundle, self._depth(), WORK / "graphs").absolute()),
            mean=wanted.mean,
            std=wanted.std,
            height=wanted.height,
            width=wanted.width,
            port=self._port,
            workers=chosen.workers,
            threads=chosen.threads,
            may_spin=chosen.may_spin,
            max_batch_size=chosen.max_batch_size,
            batch_wait_ms=chosen.batch_wait_ms,
            timeout_ms=None if self._deadline_ms is None else self._deadline_ms * chosen.expiry,
            queue_size=self._queue_size(self._deadline_ms),
            front_ends=chosen.front_ends,
            ready_folder=str(folder),
        )

    def _depth(self) -> int:
        return (
            len(self._bundle.manifest.stages) - 1 if self._exit_index is None else self._exit_index
        )

    def _queue_size(self, deadline_ms: float | None) -> int:
        """Return how many requests may wait: so many deadlines' worth at what this exit takes."""
        if deadline_ms is None:
            return _UNLIMITED
        served = deadline_ms / _service_ms(self._bundle, self._searched, self._depth())
        return max(1, math.ceil(self._searched.chosen.queue_deadlines * served))

    def _wait_until_ready(self, process: subprocess.Popen[bytes], spec: PeerSpec) -> None:
        body = io.BytesIO()
        np.save(body, np.zeros((spec.height, spec.width, 3), np.uint8))
        until = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < until:
            if process.poll() is not None:
                raise ServerFailed(f"{self._peer} ended with status {process.returncode}")
            if _num_warm(spec) >= spec.workers and self._answers(body.getvalue()):
                return
            try:
                process.wait(_ATTEMPT_S)
            except subprocess.TimeoutExpired:
                continue
        raise ServerFailed(f"{self._peer} was not ready within {_START_LIMIT_S:.0f} s")

    def _answers(self, body: bytes) -> bool:
        headers = {"Content-Type": "application/x-npy"}
        url = f"http://127.0.0.1:{self._port}{_PATH}"
        try:
            return httpx.post(url, content=body, headers=headers).is_success
        except httpx.TransportError:
            return False


def _wait_for_all(pids: Iterable[int]) -> None:
    """Return when processes that were killed are gone: the next server wants their processors."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            select.select([descriptor], [], [], _END_LIMIT_S)
        finally:
            os.close(descriptor)


def _num_warm(spec: PeerSpec) -> int:
    return sum(path.name.isdigit() for path in Path(spec.ready_folder).iterdir())


def _service_ms(bundle: Bundle, searched: SearchResult, exit_index: int) -> float:
    """Return the time an image takes at an exit: between the two measured, by its MACs."""
    macs = bundle.costs.direct_macs
    first, last = searched.service_ms
    if macs[-1] == macs[0]:
        return last
    return first + (last - first) * (macs[exit_index] - macs[0]) / (macs[-1] - macs[0])
