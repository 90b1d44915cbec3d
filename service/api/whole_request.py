"""A request that came whole with one read, and the one write that answers it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from starlette.types import Message

from service.api.context import RequestContext
from service.api.exchange import Reply
from service.api.hangup import ClientGone

T = TypeVar("T")
WriteReply: TypeAlias = Callable[["WholeRequest", Reply], None]


class WholeRequest:
    """An `Exchange` without anything to wait for; owned by its connection.

    Stands in for a cycle of uvicorn's, of which its protocol reads `response_complete` and
    `keep_alive`.

    Args:
        context: What is known of it.
        target: Its path and, behind the question mark, its query.
        headers: Names in lower case.
        body: All of it.
        write: Answers it.
    """

    __slots__ = (
        "_waiter",
        "_write",
        "body",
        "context",
        "has_left",
        "headers",
        "keep_alive",
        "on_hang_up",
        "path",
        "query",
        "response_complete",
        "whole_body",
    )

    def __init__(
        self,
        context: RequestContext,
        target: bytes,
        *,
        headers: Mapping[bytes, bytes],
        body: bytes,
        write: WriteReply,
    ) -> None:
        self.context = context
        self.path, _, self.query = target.partition(b"?")
        self.headers = headers
        self.body = body
        self.whole_body: bytes | None = body
        self.keep_alive = True
        self.response_complete = False
        self.on_hang_up: Callable[[], None] | None = None  # whoever serves it without a task
        self._write = write
        self.has_left = False
        self._waiter: asyncio.Task[Any] | None = None

    async def receive(self) -> Message:
        """Return the body again, for whoever reads it the long way."""
        return {"type": "http.request", "body": self.whole_body, "more_body": False}

    async def while_connected(self, work: Awaitable[T]) -> T:
        """Wait for some work; see `Exchange`."""
        waiter = self._waiter = asyncio.current_task()
        if waiter is None:
            raise RuntimeError("only a task can be cancelled")
        if self.has_left:
            waiter.cancel()
        try:
            return await work
        except asyncio.CancelledError:
            if self.has_left and waiter.uncancel() == 0:
                raise ClientGone from None
            raise
        finally:
            self._waiter = None

    async def reply(self, reply: Reply) -> None:
        """Send a response, in one write; does nothing once the client is gone."""
        self.write(reply)

    def write(self, reply: Reply) -> None:
        """Do what `reply` does, at once."""
        if not self.has_left:
            self.context.status = reply.status
            self._write(self, reply)

    def hang_up(self) -> None:
        """Hear that the client has left: what is waited for ends, nothing is sent any more."""
        self.has_left = True
        if self._waiter is not None:
            self._waiter.cancel()
        if self.on_hang_up is not None:
            self.on_hang_up()
