"""A number of clients, each sending its next request when it has its answer: what a server can."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.serving.exchange import NO_SLOT, Connection, Exchange
from benchmarks.serving.recording import NO_STATUS, Recording
from benchmarks.serving.replies import Reply


@dataclass(frozen=True, slots=True)
class ClosedLoad:
    """How many ask at once, and for how long."""

    num_clients: int
    seconds: float
    warm_up_s: float = 1.0  # before; not recorded


class ClosedLoop:
    """One run; used once.

    Args:
        port: Of the server.
        requests: Sent one after another, over and over.
        image_indices: Which image each brings.
        load: Clients and seconds.
    """

    def __init__(
        self, port: int, requests: Sequence[bytes], image_indices: Sequence[int], load: ClosedLoad
    ) -> None:
        self._exchange = Exchange(port, self._settle)
        self._requests = requests
        self._image_indices = image_indices
        self._load = load
        self._sent_at: list[float] = []
        self._last_byte_at: list[float] = []
        self._statuses: list[int] = []
        self._bodies: list[bytes] = []
        self._until = 0.0

    def run(self) -> Recording:
        """Return every request whose answer came after the warm-up and before the end.

        Raises:
            ConnectionError: The server closed a connection without an answer.
        """
        began_at = time.monotonic() + self._load.warm_up_s
        self._until = began_at + self._load.seconds
        for _ in range(self._load.num_clients):
            self._send_next(self._exchange.open())
        while (left_s := self._until - time.monotonic()) > 0:
            self._exchange.wait(left_s)
        self._exchange.close_all()
        return self._recording(began_at)

    def _send_next(self, connection: Connection) -> None:
        slot = len(self._sent_at)
        self._sent_at.append(time.monotonic())
        self._last_byte_at.append(np.nan)
        self._statuses.append(NO_STATUS)
        self._bodies.append(b"")
        self._exchange.send(connection, self._requests[slot % len(self._requests)], slot)

    def _settle(self, connection: Connection, reply: Reply | None, now: float) -> None:
        slot = connection.slot
        connection.slot = NO_SLOT
        if reply is None:
            raise ConnectionError("the server closed a connection without an answer")
        self._last_byte_at[slot] = now
        self._statuses[slot] = reply.status
        self._bodies[slot] = reply.body
        if now < self._until:
            self._send_next(connection if connection.is_open else self._exchange.open())

    def _recording(self, began_at: float) -> Recording:
        last_byte_at = np.array(self._last_byte_at)
        inside = np.flatnonzero((last_byte_at >= began_at) & (last_byte_at < self._until))
        sent_at = np.array(self._sent_at)[inside]
        images = np.array(self._image_indices)[inside % len(self._requests)]
        return Recording(
            scheduled_at=sent_at,
            sent_at=sent_at,
            last_byte_at=last_byte_at[inside],
            statuses=np.array(self._statuses, dtype=np.int64)[inside],
            image_indices=images,
            bodies=[self._bodies[i] for i in inside],
        )
