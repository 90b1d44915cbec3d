"""How settlements get from the lanes back to the event loop: all of a batch in one hop."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence

from service.engine.cohort import Settlement


class Outbox:
    """Tells waiters how their cohorts ended, all on one event loop.

    `post` may be called by any thread; everything else belongs to the event loop.
    """

    def __init__(self) -> None:
        self._settlements: deque[Settlement] = deque()
        self._is_posted = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that runs, on which whoever waits now is told later."""
        self._loop = loop = asyncio.get_running_loop()
        return loop

    def post(self, settlements: Sequence[Settlement]) -> None:
        """Tell waiters soon; what several threads post meanwhile goes in one hop."""
        self._settlements.extend(settlements)
        if not self._is_posted and self._loop is not None:
            self._is_posted = True
            call_on(self._loop, self.deliver)

    def deliver(self) -> None:
        """Tell everybody whose settlement was posted."""
        # Before looking: what is posted from here on makes a hop of its own.
        self._is_posted = False
        settlements = self._settlements
        while settlements:
            tell(settlements.popleft())


def tell(settlement: Settlement) -> None:
    """Tell the waiter of one cohort, on its event loop."""
    waiter = settlement.cohort.waiter
    if waiter is not None:
        # They know each other; apart they are freed at once, not by the next collection.
        settlement.cohort.waiter = None
        waiter.tell(settlement.outcomes)


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call back on an event loop, from any thread; nobody is left to wait on a closed one."""
    # Asked whether it is closed, it might close before the call.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
