"""Looks after the lanes: a stage that hangs must not leave anybody waiting."""

import asyncio
from collections.abc import Callable
from typing import Final

from service.engine.lanes import Lanes

_LOOKS_PER_LIMIT: Final = 10


class Watchdog:
    """Gives the lanes up once a stage hangs. Belongs to the event loop.

    Args:
        lanes: To look after, until they are closed.
        wedged_s: So long any stage may take; beyond it, ten times its 99th percentile.
        on_wedged: Called once, when callers have been told; nothing is run any more.
    """

    def __init__(self, lanes: Lanes, *, wedged_s: float, on_wedged: Callable[[], None]) -> None:
        self._lanes = lanes
        self._wedged_s = wedged_s
        self._on_wedged = on_wedged
        self._loop = asyncio.get_running_loop()

    def look(self) -> None:
        """Look now, and from now on every tenth of the limit."""
        if self._lanes.is_closed:
            return
        if self._lanes.give_up_if_wedged(least_s=self._wedged_s):
            self._on_wedged()
        else:
            self._loop.call_later(self._wedged_s / _LOOKS_PER_LIMIT, self.look)
