"""Noticing that the client has hung up, so that its work ends and its place is free."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive


class ClientGone(Exception):
    """The client hung up; nobody is left to answer."""


@asynccontextmanager
async def cancelled_on_hangup(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client hangs up.

    The body must have been read: whatever else arrives is passed over.

    Raises:
        ClientGone: In place of the cancellation, so that one from elsewhere is told apart.
    """
    worker = asyncio.current_task()
    if worker is None:
        raise RuntimeError("only a task can be cancelled")
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        worker.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if has_left and worker.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
