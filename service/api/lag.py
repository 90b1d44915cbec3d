"""How late the event loop gets round to things, so that time lost before a request is seen counts.

A request waits in the socket while the loop is held up by something else; no clock of the
application runs then. A timer that is due at known instants shows how long that was.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from service.engine.clock import Clock

INTERVAL_S: Final = 0.01
TIMER_GRANULARITY_S: Final = 0.001  # an idle loop's timers are late by up to this much
# How many turns the loop takes from a new connection in the backlog to the call of the application:
# accept, read, start the task, and one to spare. Who is called later came after the hold-up.
_TURNS_AFFECTED: Final = 4


class LoopLag:
    """Samples the lag of the running event loop; used from that loop alone.

    Args:
        clock: Monotonic.
        observe: Told every sample, in seconds.
    """

    def __init__(self, clock: Clock, observe: Callable[[float], None]) -> None:
        self._clock = clock
        self._observe = observe
        self._latest_s = 0.0
        self._due_at: float | None = None  # None while not running
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sample for as long as the block lasts."""
        self._schedule()
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._due_at = None

    def current_s(self) -> float:
        """Return by how much something handled now has been held up, at least 0.

        That is what the latest sample said, in the few turns of the loop after it; a timer that is
        overdue right now may say more.
        """
        return max(self._latest_s, self._overdue_s())

    def _overdue_s(self) -> float:
        if self._due_at is None:
            return 0.0
        return max(0.0, self._clock.now() - self._due_at - TIMER_GRANULARITY_S)

    def _schedule(self) -> None:
        self._due_at = self._clock.now() + INTERVAL_S
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._sample)

    def _sample(self) -> None:
        self._latest_s = self._overdue_s()
        self._observe(self._latest_s)
        self._schedule()
        if self._latest_s > 0:
            self._forget(_TURNS_AFFECTED)

    def _forget(self, turns_left: int) -> None:
        if turns_left > 0:
            asyncio.get_running_loop().call_soon(self._forget, turns_left - 1)
        else:
            self._latest_s = 0.0
