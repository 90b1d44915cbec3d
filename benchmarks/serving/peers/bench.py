"""Measures a peer at some settings: images a second, and what it answers rightly in time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.serving.bodies import Form
from benchmarks.serving.generator import ClosedJob, Job
from benchmarks.serving.images import IMAGES_FILE, LabelledImages
from benchmarks.serving.judge import OK, judge
from benchmarks.serving.load_process import Run, run_job
from benchmarks.serving.peers.peer_server import PeerServer
from benchmarks.serving.peers.settings import SearchResult, Trial
from benchmarks.serving.server import Endpoint
from benchmarks.serving.trace import ArrivalProcess, Load, make_trace

_TRIAL_S: Final = 5.0
_CLOSED_S: Final = 2.0
_WARM_UP_S: Final = 0.7
_CLIENTS: Final = (16, 32)
_PATIENCE_S: Final = 0.5
_REPEAT: Final = 1000  # of traces: none that the grid uses


@dataclass(frozen=True, slots=True)
class Bench:
    """Where trials take place."""

    peer: str
    images: LabelledImages
    work: Path  # holds the images' file

    def images_per_s(self, searched: SearchResult, exit_index: int | None) -> float:
        """Return what a peer answers in a closed loop with nothing given up."""
        server = PeerServer(self.peer, exit_index, searched=searched)
        server.endpoint(None)  # so that it starts without a limit
        server.start()
        try:
            return max(self._closed_rate(server, clients) for clients in _CLIENTS)
        finally:
            server.stop()

    def trial(self, searched: SearchResult) -> Trial:
        """Return how the chosen settings do at the search's rates, full depth."""
        server = PeerServer(self.peer, None, searched=searched)
        server.start()
        try:
            pairs = [self._open(server, searched.deadline_ms, hz) for hz in searched.rates_hz]
        finally:
            server.stop()
        accuracies, foreign_shares = zip(*pairs, strict=True)
        return Trial(
            settings=searched.chosen, accuracies=accuracies, foreign_share=max(foreign_shares)
        )

    def _closed_rate(self, server: PeerServer, clients: int) -> float:
        job = ClosedJob(num_clients=clients, seconds=_CLOSED_S, warm_up_s=_WARM_UP_S)
        run = self._run(server, server.endpoint(None), job)
        return float((run.recording.statuses == OK).sum()) / _CLOSED_S

    def _open(self, server: PeerServer, deadline_ms: float, rate_hz: float) -> tuple[float, float]:
        """Return accuracy under the deadline, and others' share of the processors."""
        trace = self.work / "peer-trace.npz"
        load = Load(ArrivalProcess.POISSON, rate_hz, _TRIAL_S, _REPEAT)
        make_trace(load, num_images=len(self.images.labels)).write(trace)
        warm_up = ClosedJob(num_clients=_CLIENTS[0], seconds=_WARM_UP_S, warm_up_s=0.0)
        run = self._run(server, server.endpoint(deadline_ms), warm_up, trace=trace)
        outcomes = judge(
            run.recording,
            server.read,
            self.images.labels,
            deadline_ms=deadline_ms,
            seconds=_TRIAL_S,
        )
        return float(outcomes.is_useful.mean()), run.watched.foreign_share

    def _run(
        self,
        server: PeerServer,
        endpoint: Endpoint,
        closed: ClosedJob,
        *,
        trace: Path | None = None,
    ) -> Run:
        return run_job(
            Job(
                port=endpoint.port,
                path=endpoint.path,
                headers=endpoint.headers,
                form=Form.NPY,
                images=self.work / IMAGES_FILE,
                output=self.work / "peer-recording.npz",
                own_sessions=(server.pid,),
                trace=trace,
                closed=closed,
                patience_s=_PATIENCE_S,
            )
        )
