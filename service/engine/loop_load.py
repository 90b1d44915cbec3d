"""Leaves the event loop a core of its own when it needs one.

Lanes that fill all cores share one of them with the event loop. While that has little to do they
are best let: images go deeper. Under many requests they are not: the loop and the lanes keep taking
the interpreter and the core from each other, batches take three times as long as they should, and
the last lane adds less than it costs.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

_INTERVAL_S: Final = 0.05
_NEWEST_WEIGHT: Final = 0.2  # of an interval: a quarter of a second counts
# Of a core. On two cores the second lane pays at 0.2 and does not at 0.4; between the two nothing
# changes, so that lanes do not come and go.
_BUSY_SHARE: Final = 0.3
_QUIET_SHARE: Final = 0.2
# When requests are let gather, and how long at a time. One by one, each wakes the loop and takes
# the interpreter from the lane; a handful at once cost hardly more than one.
_CROWDED_SHARE: Final = 0.4
_THINNED_SHARE: Final = 0.25
_BREATH_S: Final = 0.0005


class RestableLanes(Protocol):
    """What is to be known of lanes, and the one thing asked of them; see `Lanes`."""

    @property
    def num_lanes(self) -> int: ...  # noqa: D102 - the class says it, here and below

    @property
    def is_closed(self) -> bool: ...  # noqa: D102

    @property
    def has_deadlines(self) -> bool: ...  # noqa: D102

    def keep_active(self, num_active: int) -> None:
        """Have only so many take batches."""
        ...


class LoopLoad:
    """Has the last lane rest while the event loop is busy and deadlines are about.

    Busier still, it has the loop take requests a few at a time.

    Belongs to the event loop. Where nobody has a deadline, all lanes run: throughput is all that
    counts.

    Args:
        lanes: As many as fill all cores, more than one.
        thread_time: Seconds of the processor that the calling thread has had.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        lanes: RestableLanes,
        *,
        thread_time: Callable[[], float] = time.thread_time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = lanes
        self._thread_time = thread_time
        self._now = now
        self._worked_s = thread_time()
        self._looked_at = now()
        self._share = 0.0
        self.is_crowded = False  # whether it lets requests gather
        self._loop = asyncio.get_running_loop()

    def look(self) -> None:
        """Look now, and from now on a few times a second until the lanes are closed."""
        if self._lanes.is_closed:
            return
        self.weigh()
        self._loop.call_later(_INTERVAL_S, self.look)

    def weigh(self) -> None:
        """Take in what the loop did since the last time, and say how many lanes may run."""
        worked_s, now = self._thread_time(), self._now()
        elapsed_s = now - self._looked_at
        if elapsed_s <= 0.0:
            return
        self._share += _NEWEST_WEIGHT * ((worked_s - self._worked_s) / elapsed_s - self._share)
        self._worked_s, self._looked_at = worked_s, now
        lanes = self._lanes
        if self._share <= _QUIET_SHARE or not lanes.has_deadlines:
            lanes.keep_active(lanes.num_lanes)
        elif self._share >= _BUSY_SHARE:
            lanes.keep_active(lanes.num_lanes - 1)
        self._breathe_while_crowded(has_deadlines=lanes.has_deadlines)

    def _breathe_while_crowded(self, *, has_deadlines: bool) -> None:
        if self._share <= _THINNED_SHARE or not has_deadlines:
            self.is_crowded = False
        elif self._share >= _CROWDED_SHARE and not self.is_crowded:
            self.is_crowded = True
            self._loop.call_soon(self._breathe)

    def _breathe(self) -> None:
        """Let requests gather for a moment, once a turn of the loop."""
        if self.is_crowded and not self._lanes.is_closed:
            time.sleep(_BREATH_S)  # blocking on purpose: the whole loop is to wait
            self._loop.call_soon(self._breathe)
