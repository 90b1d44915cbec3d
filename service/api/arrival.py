"""When a request really arrived: the start of its deadline and of every time reported."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from service.engine.clock import Clock

# Longer ago than any proxy holds a request: a wrong clock, or another unit.
MAX_PROXY_DELAY_S: Final = 300.0
_REQUEST_START = re.compile(rb"t=(\d{1,17})")


def unix_time_s() -> float:
    """Return the wall clock, the only one shared with a proxy in front."""
    return datetime.now(UTC).timestamp()


@dataclass(frozen=True, slots=True)
class ArrivalClock:
    """Dates requests back to before the application was called for them.

    Attributes:
        clock: Monotonic; deadlines are counted on it.
        lag_s: How long the event loop held up what it handles now, in seconds.
        trust_request_start: Believe the proxy in front about when it began to forward.
        wall_s: Unix time in seconds, read only where a proxy is believed.
    """

    clock: Clock
    lag_s: Callable[[], float]
    trust_request_start: bool
    wall_s: Callable[[], float] = unix_time_s

    def arrived_at(self, request_start: bytes | None) -> float:
        """Return when the request being taken up now arrived.

        Args:
            request_start: The value of ``X-Request-Start``, ``t=<unix µs>``; what is malformed,
                in the future or long past is passed over.
        """
        held_up_s = self.lag_s()
        if self.trust_request_start and request_start is not None:
            held_up_s = max(held_up_s, self._proxy_delay_s(request_start))
        return self.clock.now() - held_up_s

    def _proxy_delay_s(self, request_start: bytes) -> float:
        match = _REQUEST_START.fullmatch(request_start.strip())
        if match is None:
            return 0.0
        delay_s = self.wall_s() - int(match.group(1)) / 1e6
        return delay_s if 0.0 <= delay_s <= MAX_PROXY_DELAY_S else 0.0
