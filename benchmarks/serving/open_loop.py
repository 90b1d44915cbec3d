"""Sends every request when it is due, whatever became of those before: load that does not yield."""

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.serving.exchange import NO_SLOT, Connection, Exchange
from benchmarks.serving.recording import NO_STATUS, Recording
from benchmarks.serving.replies import Reply
from benchmarks.serving.timer import AlarmTimer
from benchmarks.serving.trace import Trace

_HEAD_START_S: Final = 0.25  # from opening connections to the first request
_TICK_S: Final = 0.05  # how often silence is looked for
_SENT_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class OpenLoopLimits:
    """What the generator may take."""

    ready_connections: int = 256  # opened before the start
    max_connections: int = 8192  # an arrival that finds them all busy is a miss
    patience_s: float = 1.0  # after the send; then the connection is closed, as a client hangs up


class OpenLoop:
    """One run over one trace; used once.

    Args:
        port: Of the server.
        trace: When to send.
        requests: What to send, by arrival.
        limits: Connections and patience.
    """

    def __init__(
        self, port: int, trace: Trace, requests: Sequence[bytes], limits: OpenLoopLimits
    ) -> None:
        self._exchange = Exchange(port, self._settle)
        self._timer = AlarmTimer()
        self._exchange.watch(self._timer.fileno)
        self._trace = trace
        self._requests = requests
        self._limits = limits
        number = len(trace)
        self._due_at: list[float] = []
        self._sent_at = [math.nan] * number
        self._last_byte_at = [math.nan] * number
        self._statuses = [NO_STATUS] * number
        self._bodies = [b""] * number
        self._next = 0
        self._armed_for: int | None = None
        self._look_at = 0.0  # for silence, next
        self._num_in_flight = 0
        # First in, first out: every connection stays in use, so none is closed for idling.
        self._idle: deque[Connection] = deque()
        self._in_flight: deque[tuple[int, Connection]] = deque()

    def run(self) -> Recording:
        """Send everything; return once all is answered or out of patience."""
        for _ in range(self._limits.ready_connections):
            self._idle.append(self._exchange.open())
        began_at = time.monotonic() + _HEAD_START_S
        self._due_at = (self._trace.scheduled_s + began_at).tolist()
        while self._next < len(self._due_at) or self._num_in_flight:
            self._send_due()
            if time.monotonic() >= self._look_at:
                self._hang_up()
            self._exchange.wait(_TICK_S)
        self._exchange.close_all()
        self._timer.close()
        return Recording(
            scheduled_at=np.array(self._due_at),
            sent_at=np.array(self._sent_at),
            last_byte_at=np.array(self._last_byte_at),
            statuses=np.array(self._statuses, dtype=np.int64),
            image_indices=self._trace.image_indices,
            bodies=self._bodies,
        )

    def _send_due(self) -> None:
        due_at, number = self._due_at, len(self._due_at)
        for _ in range(_SENT_AT_ONCE):
            if self._next >= number:
                return
            if due_at[self._next] > time.monotonic():
                break
            slot = self._next
            self._next += 1
            self._send(slot)
        # What is due already makes the timer fire at once: answers are looked at in between.
        if self._next < number and self._next != self._armed_for:
            self._armed_for = self._next
            self._timer.set(due_at[self._next])

    def _send(self, slot: int) -> None:
        connection = self._take_connection()
        if connection is None:
            return
        self._sent_at[slot] = time.monotonic()
        self._num_in_flight += 1
        self._in_flight.append((slot, connection))
        self._exchange.send(connection, self._requests[slot], slot)

    def _take_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.popleft()
            if connection.is_open:
                return connection
        if self._exchange.num_connections >= self._limits.max_connections:
            return None
        return self._exchange.open()

    def _hang_up(self) -> None:
        """Close the connections of those whose answer is not waited for any longer."""
        now = time.monotonic()
        self._look_at = now + _TICK_S
        sent_before = now - self._limits.patience_s
        while self._in_flight:
            slot, connection = self._in_flight[0]
            is_waiting = math.isnan(self._last_byte_at[slot])
            if is_waiting and self._sent_at[slot] > sent_before:
                return
            self._in_flight.popleft()
            if connection.slot == slot:
                self._exchange.close(connection)
                self._num_in_flight -= 1

    def _settle(self, connection: Connection, reply: Reply | None, now: float) -> None:
        slot = connection.slot
        connection.slot = NO_SLOT
        self._num_in_flight -= 1
        if reply is not None:
            self._last_byte_at[slot] = now
            self._statuses[slot] = reply.status
            self._bodies[slot] = reply.body
        if connection.is_open:
            self._idle.append(connection)
