"""The short way for whole requests: from the parser to their handler, and back in one write.

uvicorn's protocol makes a scope, an event and several coroutines for every request and writes each
answer in two pieces: 15 µs, as much as all the rest of the API. A request of the route that is
asked thousands of times a second is spared that where all of it came with one read. Any other, be
it only that its body is still coming, goes uvicorn's own way, and the application does the same.
"""

import asyncio
import logging
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.api.books import name_task
from service.api.entrance import FrontDesk
from service.api.exchange import Reply
from service.api.whole_request import WholeRequest

_HEAD: Final = b"content-length: %d\r\ncontent-type: %b\r\nx-request-id: %b\r\n"
_CLOSE: Final = b"connection: close\r\n"

logger = logging.getLogger(__name__)


class HttpConnection(HttpToolsProtocol):
    """One connection; uvicorn makes them, and says all but the first argument.

    Args:
        desk: Says what may go the short way.
        config: uvicorn's, as the rest.
        server_state: What all connections share.
        app_state: What the lifespan left.
    """

    cycle: Any  # uvicorn's, or a `WholeRequest`

    def __init__(
        self,
        desk: FrontDesk,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._desk = desk
        self._paths = frozenset(path.encode() for path in desk.direct.paths)
        self._method = desk.direct.method.encode()
        self._pieces: list[bytes] | None = None  # of a body held back; None: nothing is
        self._request: WholeRequest | None = None  # the latest that went the short way
        self._fresh: WholeRequest | None = None  # the same, until it is served
        self._idle_since: float | None = None  # on the loop's clock; None: in use

    def data_received(self, data: bytes) -> None:
        """Parse what came; what is not whole by then goes the long way."""
        super().data_received(data)
        # Here, not in the parser's callbacks: it would take a defect of ours for a fault of theirs.
        request, self._fresh = self._fresh, None
        if request is not None:
            self._serve_whole(request)
        if self._pieces is not None:
            pieces, self._pieces = self._pieces, None
            if not self.transport.is_closing():
                self._go_long()
                for piece in pieces:
                    super().on_body(piece)

    def on_message_begin(self) -> None:
        """Begin a request, without the scope that only the long way has a use for."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Hold a request back that may go the short way."""
        if self._may_be_short():
            self._pieces = []
        else:
            self._go_long()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self._pieces is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Serve a request that was held back and is whole now."""
        if self._pieces is None:
            super().on_message_complete()
            return
        pieces, self._pieces = self._pieces, None
        headers = dict(self.headers)
        request = WholeRequest(
            self._desk.books.open(headers),
            self.url,
            headers=headers,
            body=pieces[0] if len(pieces) == 1 else b"".join(pieces),
            write=self._write_reply,
        )
        parser = self.parser
        request.keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        self._request = self._fresh = request
        self.cycle = request  # it has what is read of a cycle

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for the client that there is none any more."""
        request = self._request
        if request is not None and not request.response_complete:
            request.hang_up()
        if self.cycle is request:
            self.cycle = None
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def on_response_complete(self) -> None:
        """Do what uvicorn does, but leave a timer that runs already to look after the idle."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_if_idle_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for so long, else look again when it may have been."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._close_if_idle_in(left_s)
        else:
            super().timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        """Note that the connection is in use.

        uvicorn ends its timer for each request and begins another: 3 µs with many connections.
        """
        self._idle_since = None

    def _close_if_idle_in(self, delay_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            delay_s, self.timeout_keep_alive_handler
        )

    def _may_be_short(self) -> bool:
        url = self.url
        if url.partition(b"?")[0] not in self._paths or b"#" in url:
            return False
        parser = self.parser
        if (
            parser.get_method() != self._method
            or parser.should_upgrade()
            or self.expect_100_continue
        ):
            return False
        # One at a time, and none for a client that does not read: the long way knows how to wait.
        is_free = self.cycle is None or self.cycle.response_complete
        return is_free and not self.flow.write_paused

    def _go_long(self) -> None:
        """Do what uvicorn does once it has the headers, and what it did before."""
        url, headers, is_announced = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.headers.extend(headers)  # into the list that the scope holds
        self.url, self.expect_100_continue = url, is_announced
        super().on_headers_complete()

    def _serve_whole(self, request: WholeRequest) -> None:
        if not self._desk.direct.start(request, self._close_books):
            task = self.loop.create_task(self._serve(request))
            self.tasks.add(task)
            task.add_done_callback(self._let_go)

    async def _serve(self, request: WholeRequest) -> None:
        name_task(request.context)
        try:
            await self._desk.direct.serve(request)
        finally:
            self._close_books(request)

    def _close_books(self, request: WholeRequest) -> None:
        direct = self._desk.direct
        self._desk.books.close(
            request.context, method=direct.method, path=request.path.decode(), route=direct.path
        )

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a request met a defect", exc_info=error)
        if error is not None or task.cancelled():
            self.transport.close()

    def _write_reply(self, request: WholeRequest, reply: Reply) -> None:
        """Write status, headers and body at once; then the connection is free again."""
        content = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            content += (name, b": ", value, b"\r\n")
            if name == b"connection":
                request.keep_alive = False
        identity = request.context.request_id.encode()
        content.append(_HEAD % (len(reply.body), reply.media_type, identity))
        if not request.keep_alive:
            content.append(_CLOSE)
        content += (b"\r\n", reply.body)
        self.transport.write(b"".join(content))
        request.response_complete = True
        if not request.keep_alive:
            self.transport.close()
        self.on_response_complete()
