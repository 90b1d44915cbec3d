"""The books on requests: when each came, what it is called, what became of it.

Whichever way a request comes in, through the framework or past it, it is opened and closed here.
"""

import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

from service.api.arrival import ArrivalClock
from service.api.context import RequestContext, current_request_id
from service.api.request_metrics import RequestMetrics
from service.engine.clock import Clock

# Asked all the time, by machines.
_QUIET_ROUTES: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
_REQUEST_ID = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")
_RANDOM_BYTES: Final = 8  # of a process; with a number after them they name a request for good

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that is over, as the log and the metrics know it."""

    method: str
    route: str  # the route's template, or "unmatched"
    status: int | None  # None: nothing was sent
    outcome: str  # "ok", "hung-up", or the slug of a problem
    elapsed_s: float


class Books:
    """Dates and names requests, counts them, and writes each one's line in the log.

    Args:
        arrivals: Says when a request arrived.
        clock: Monotonic, that of `arrivals`.
        metrics: Told when a request comes in and when it is over.
    """

    def __init__(self, arrivals: ArrivalClock, clock: Clock, metrics: RequestMetrics) -> None:
        self._arrivals = arrivals
        self._clock = clock
        self._metrics = metrics
        self._prefix = secrets.token_hex(_RANDOM_BYTES)
        self._numbers = count()

    def open(self, headers: Mapping[bytes, bytes]) -> RequestContext:
        """Take a request in, at the instant it is first seen; it must be closed.

        Args:
            headers: Names in lower case.
        """
        called_at = self._clock.now()
        arrived_at = self._arrivals.arrived_at(headers.get(b"x-request-start"))
        self._metrics.request_began()
        return RequestContext(
            arrived_at, self._name(headers.get(b"x-request-id")), max(0.0, called_at - arrived_at)
        )

    def close(self, context: RequestContext, *, method: str, path: str, route: str) -> None:
        """Count a request out and log it; from the task that handled it."""
        elapsed_s = self._clock.now() - context.arrived_at
        outcome = context.outcome
        self._metrics.request_ended(route=route, outcome=outcome, elapsed_s=elapsed_s)
        level = logging.DEBUG if route in _QUIET_ROUTES else logging.INFO
        if logger.isEnabledFor(level):
            record = RequestRecord(method, route, context.status, outcome, elapsed_s)
            _log_access(record, path, level, context.request_id)

    def _name(self, sent: bytes | None) -> str:
        """Keep the caller's id where it can stand in a header and a log line, else make one."""
        if sent is not None and _REQUEST_ID.fullmatch(sent):
            return sent.decode()
        return f"{self._prefix}{next(self._numbers):016x}"


def _log_access(record: RequestRecord, path: str, level: int, request_id: str) -> None:
    """Write the one line that every request leaves in the log.

    Made by hand: `Logger.log` looks at the stack for who called, which costs as much as the rest.
    """
    arguments = (record.method, path, record.outcome)
    line = logging.LogRecord(logger.name, level, __file__, 0, "%s %s %s", arguments, None)
    line.__dict__.update(
        route=record.route,
        status=record.status,
        outcome=record.outcome,
        elapsed_ms=round(1000 * record.elapsed_s, 3),
        request_id=request_id,
    )
    logger.handle(line)


def name_task(context: RequestContext) -> None:
    """Put a request's id on every line that the running task logs from here on."""
    current_request_id.set(context.request_id)
