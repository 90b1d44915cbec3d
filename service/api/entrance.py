"""The outermost layer: every request comes in and goes out here, also those nobody answers.

Plain ASGI, as every wrapper of the application: what starlette offers instead runs each request in
a task group of its own.
"""

import logging
import re
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.arrival import ArrivalClock
from service.api.context import RequestContext, attach_context
from service.api.request_metrics import RequestMetrics
from service.engine.clock import Clock

# Asked all the time, by machines.
_QUIET_ROUTES: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
_VERSION_PREFIX: Final = "/v1"
_REQUEST_ID = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request that is over, as the log and the metrics know it."""

    method: str
    route: str  # the route's template, or "unmatched"
    status: int | None  # None: nothing was sent
    outcome: str  # "ok", "hung-up", or the slug of a problem
    elapsed_s: float


class Entrance:
    """Dates requests, names them, serves ``/v1`` as what it stands for, and keeps the books.

    Args:
        app: Everything else.
        arrivals: Says when a request arrived.
        clock: Monotonic, that of `arrivals`.
        metrics: Told when a request comes in and when it is over.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        arrivals: ArrivalClock,
        clock: Clock,
        metrics: RequestMetrics,
    ) -> None:
        self._app = app
        self._arrivals = arrivals
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        called_at = self._clock.now()
        arrived_at = self._arrivals.arrived_at(headers.get(b"x-request-start"))
        context = RequestContext(
            arrived_at=arrived_at,
            request_id=_request_id(headers.get(b"x-request-id")),
            held_up_s=max(0.0, called_at - arrived_at),
        )
        attach_context(scope, context)
        _enter_version(scope)
        identity = (b"x-request-id", context.request_id.encode())

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                message["headers"] = [*message.get("headers", ()), identity]
            await send(message)

        self._metrics.request_began()
        try:
            await self._app(scope, receive, send_named)
        finally:
            self._close_books(scope, context)

    def _close_books(self, scope: Scope, context: RequestContext) -> None:
        route = scope.get("route")
        record = RequestRecord(
            method=scope["method"],
            route=getattr(route, "path", "unmatched"),
            status=context.status,
            outcome=context.outcome,
            elapsed_s=self._clock.now() - context.arrived_at,
        )
        self._metrics.request_ended(
            route=record.route, outcome=record.outcome, elapsed_s=record.elapsed_s
        )
        log_access(record, path=scope["path"])


def log_access(record: RequestRecord, *, path: str) -> None:
    """Write the one line that every request leaves in the log."""
    level = logging.DEBUG if record.route in _QUIET_ROUTES else logging.INFO
    logger.log(
        level,
        "%s %s %s",
        record.method,
        path,
        record.outcome,
        extra={
            "route": record.route,
            "status": record.status,
            "outcome": record.outcome,
            "elapsed_ms": round(1000 * record.elapsed_s, 3),
        },
    )


def _request_id(sent: bytes | None) -> str:
    """Keep the caller's id where it can stand in a header and a log line, else make one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode()
    return uuid4().hex


def _enter_version(scope: Scope) -> None:
    """Make ``/v1/…`` mean ``…``: the version is a root under which the same routes are mounted."""
    if scope["path"].startswith(f"{_VERSION_PREFIX}/") and not scope.get("root_path"):
        scope["root_path"] = _VERSION_PREFIX
