"""The outermost layer: every request comes in and goes out here, also those nobody answers.

Plain ASGI, as every wrapper of the application: what starlette offers instead runs each request in
a task group of its own.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.books import Books, name_task
from service.api.context import RequestContext, attach_context
from service.api.exchange import AsgiExchange, Exchange
from service.api.whole_request import WholeRequest

_VERSION_PREFIX: Final = "/v1"


@dataclass(frozen=True, slots=True)
class DirectPath:
    """A route of one path and method whose requests go around the framework."""

    method: str
    path: str  # its template too
    serve: Callable[[Exchange], Awaitable[None]]
    start: Callable[[WholeRequest, Callable[[WholeRequest], None]], bool]  # without a task, or not

    @property
    def paths(self) -> tuple[str, str]:
        """Every path that means it."""
        return self.path, f"{_VERSION_PREFIX}{self.path}"


@dataclass(frozen=True, slots=True)
class FrontDesk:
    """Where requests are written down, and the one route that the framework is not asked for."""

    books: Books
    direct: DirectPath


class Entrance:
    """Opens and closes the books on requests, and serves ``/v1`` as what it stands for.

    Args:
        app: Everything else.
        desk: Where requests are written down, and what `app` is not asked for.
    """

    def __init__(self, app: ASGIApp, desk: FrontDesk) -> None:
        self._app = app
        self._books = desk.books
        self._direct = desk.direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = self._books.open(dict(scope["headers"]))
        name_task(context)
        attach_context(scope, context)
        method, path = scope["method"], scope["path"]
        direct = self._direct
        is_direct = path in direct.paths and method == direct.method and not scope.get("root_path")
        try:
            if is_direct:
                await direct.serve(AsgiExchange(scope, receive, send))
            else:
                _enter_version(scope)
                await self._app(scope, receive, _named(send, context))
        finally:
            route = direct.path if is_direct else _route_of(scope)
            self._books.close(context, method=method, path=path, route=route)


def _named(send: Send, context: RequestContext) -> Send:
    """Put a request's id on its response, and note the status."""
    identity = (b"x-request-id", context.request_id.encode())

    async def send_named(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.status = message["status"]
            message["headers"] = [*message.get("headers", ()), identity]
        await send(message)

    return send_named


def _route_of(scope: Scope) -> str:
    """Return the template of the route that took a request, or "unmatched"."""
    path: str = getattr(scope.get("route"), "path", "unmatched")
    return path


def _enter_version(scope: Scope) -> None:
    """Make ``/v1/…`` mean ``…``: the version is a root under which the same routes are mounted."""
    if scope["path"].startswith(f"{_VERSION_PREFIX}/") and not scope.get("root_path"):
        scope["root_path"] = _VERSION_PREFIX
