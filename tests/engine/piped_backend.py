"""A backend whose lanes are heard through sockets, and live, die and run as a test says."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageKey,
    StageOutput,
    Ticket,
)
from service.backends.fake import FakeBackend, FakeModel
from service.errors import BackendFailed


class PipedLane:
    """A lane whose other end is the test's; see `StageLane`."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self._here: socket.socket | None = None
        self._there: socket.socket | None = None
        self.images: list[tuple[int, ...]] = []  # of each batch it was given
        self.is_held = False  # whether its stages end only when the test says so
        self.num_failing_revivals = 0
        self.num_revivals = 0
        self.without_core_s = 0.0
        self._connect()

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        return self._backend.put(model, inputs)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        if self._here is None:
            raise BackendFailed("the lane is gone")
        ticket = self._backend.submit(stage, parts, classify=classify)
        self.images.append(self._backend.calls[-1].images)
        if not self.is_held:
            self.say_done()
        return _PipedTicket(self, ticket)

    def fileno(self) -> int:
        return -1 if self._here is None else self._here.fileno()

    def waited_s(self) -> float:
        return self.without_core_s

    def revive(self) -> None:
        self.num_revivals += 1
        if self.num_failing_revivals:
            self.num_failing_revivals -= 1
            raise BackendFailed("it does not start, as scripted")
        self._connect()

    def take_up(self) -> None:
        self.receive()

    def receive(self) -> None:
        if self._here is None or not self._here.recv(1):
            self.go()
            raise BackendFailed("the lane died")

    def say_done(self) -> None:
        """Say that the stage is over, or that what was revived is there."""
        assert self._there is not None
        self._there.send(b".")

    def die(self) -> None:
        """Go without a word; whoever listens finds out."""
        assert self._there is not None
        self._there.close()

    def go(self) -> None:
        """Close both ends."""
        for end in (self._here, self._there):
            if end is not None:
                end.close()
        self._here = self._there = None

    def _connect(self) -> None:
        self.go()
        self._here, self._there = socket.socketpair()


@dataclass(frozen=True, slots=True)
class _PipedTicket:
    lane: PipedLane
    ticket: Ticket

    def result(self) -> StageOutput:
        self.lane.receive()
        return self.ticket.result()


class PipedBackend(FakeBackend):
    """Answers from a script, in lanes that nobody waits for; see `LanedBackend`."""

    def __init__(self, models: Mapping[ModelKey, FakeModel], *, num_lanes: int = 1) -> None:
        super().__init__(models)
        self.lanes = tuple(PipedLane(self) for _ in range(num_lanes))

    def close(self) -> None:
        for lane in self.lanes:
            lane.go()
        super().close()
