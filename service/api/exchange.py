"""One request and the way back to whoever sent it, whichever server is in front.

Handlers that must be cheap are written against `Exchange`; `AsgiExchange` is the way through any
ASGI server, `service.api.connection` has the short one through ours.
"""

from collections.abc import Awaitable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.context import RequestContext, context_of
from service.api.hangup import cancelled_on_hangup

T = TypeVar("T")
Header = tuple[bytes, bytes]


class Reply(NamedTuple):
    """A response that is all there."""

    status: int
    media_type: bytes
    body: bytes
    headers: tuple[Header, ...] = ()  # besides length and type


class Exchange(Protocol):
    """One request, and the way back."""

    context: RequestContext
    query: bytes  # as sent, without the question mark
    headers: Mapping[bytes, bytes]  # names in lower case; of repeated ones the last
    whole_body: bytes | None  # None: it is still coming, see `receive`

    @property
    def receive(self) -> Receive:
        """Return the next message of the body, as ASGI has them."""
        ...

    async def while_connected(self, work: Awaitable[T]) -> T:
        """Wait for some work, and cancel it when the client hangs up; the body must be there.

        Raises:
            ClientGone: It did.
        """
        ...

    async def reply(self, reply: Reply) -> None:
        """Send a response; does nothing once the client is gone."""
        ...


class AsgiExchange:
    """A request as any ASGI server hands it over; an `Exchange`.

    Args:
        scope: With a context attached.
        receive: The body comes from here.
        send: The response goes here.
    """

    whole_body: bytes | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.context = context_of(scope)
        self.query: bytes = scope["query_string"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.receive = receive
        self._send = send

    async def while_connected(self, work: Awaitable[T]) -> T:
        """Wait for some work; see `Exchange`."""
        async with cancelled_on_hangup(self.receive):
            return await work

    async def reply(self, reply: Reply) -> None:
        """Send a response."""
        self.context.status = reply.status
        headers = [
            (b"content-length", b"%d" % len(reply.body)),
            (b"content-type", reply.media_type),
            *reply.headers,
            (b"x-request-id", self.context.request_id.encode()),
        ]
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": reply.body})


def response_of(reply: Reply) -> Response:
    """Return a reply as the framework sends it, which adds the request's id itself."""
    response = Response(reply.body, reply.status, media_type=reply.media_type.decode())
    response.raw_headers.extend(reply.headers)
    return response
