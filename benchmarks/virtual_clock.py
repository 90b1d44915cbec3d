"""Time that passes only from event to event."""

import heapq
from collections.abc import Callable
from enum import IntEnum
from itertools import count


class Order(IntEnum):
    """What comes first of all that happens at one instant."""

    END = 0  # of a batch: an answer that is there in time is in time
    ARRIVAL = 1
    TIMER = 2
    LOOK = 3  # of lanes for work: what arrives at once runs together


class VirtualClock:
    """Stands still until it is advanced; on the way it calls back at the instants asked for."""

    def __init__(self) -> None:
        self._now = 0.0
        self._alarms: list[tuple[float, Order, int, Callable[[], None]]] = []
        self._order = count()

    def now(self) -> float:
        """Return the present instant; see `Clock`."""
        return self._now

    def call_at(
        self, instant: float, callback: Callable[[], None], order: Order = Order.ARRIVAL
    ) -> None:
        """Call back at an instant; what happens at once in this order, then as asked for."""
        heapq.heappush(self._alarms, (instant, order, next(self._order), callback))

    def call_next(self) -> bool:
        """Go to the next alarm and let it happen; False where there is none."""
        if not self._alarms:
            return False
        alarm_at, _, _, callback = heapq.heappop(self._alarms)
        self._now = max(self._now, alarm_at)
        callback()
        return True
