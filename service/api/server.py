"""The HTTP server around the application: how it listens, and how it leaves.

On SIGTERM or SIGINT readiness ends at once; for a while everything is still served, so that
balancers notice; then the listener closes, what has begun is finished, and the process ends with 0.
A second signal skips the waiting, a third one what has begun.
"""

import asyncio
import math
import socket
from functools import partial
from types import FrameType
from typing import Final, cast

import uvicorn

from service.api.application import Application
from service.api.connection import HttpConnection
from service.engine.clock import Clock
from service.settings import Settings

# Longer than the idle time of common balancers, so that they close connections and not we: a
# request sent into a connection that is being closed is lost.
_KEEP_ALIVE_S: Final = 75


class DrainingServer(uvicorn.Server):
    """A server that announces its end before it comes.

    Args:
        app: What is served; its health is told.
        settings: Where to listen, and how long to wait at the end.
        clock: Monotonic.
    """

    def __init__(self, app: Application, settings: Settings, clock: Clock) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", partial(HttpConnection, app.front_desk)),
                host=settings.host,
                port=settings.port,
                lifespan="on",
                ws="none",
                log_config=None,  # configured already
                access_log=False,  # the entrance writes one
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s),
            )
        )
        self._health = app.health
        self._drain_s = settings.drain_s
        self._clock = clock
        self._leaves_at: float | None = None  # None until asked to

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; called by a signal.

        uvicorn's own way is to raise the signal again at the end, so that the process seems
        killed; to be asked to leave and to have left is success here.
        """
        del sig, frame
        if self.should_exit:
            self.force_exit = True
        elif self._leaves_at is not None:
            self._leaves_at = self._clock.now()
            self.should_exit = True
        else:
            self._health.drain()
            self._leaves_at = self._clock.now() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        """Decide, ten times a second, whether it is time."""
        if self._leaves_at is not None and self._clock.now() >= self._leaves_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener and finish what has begun; whatever else comes is refused."""
        self._health.close()
        await super().shutdown(sockets)
