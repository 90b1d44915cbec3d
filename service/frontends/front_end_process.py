"""A front end: all of a server but its engine, which is another process. Composition root."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from service.api.application import Application, Lifespan, upload_limits
from service.api.server import DrainingServer
from service.app import engine_limits, open_served
from service.decode import Decoder
from service.engine.clock import MonotonicClock
from service.engine.stage_costs import StageCosts
from service.front import Front
from service.frontends.finder import FrontEnd
from service.frontends.group_metrics import GroupRegistry
from service.frontends.orders import Orders, Runtime
from service.frontends.remote import RemoteEngine
from service.metrics import EngineMetrics
from service.settings import Settings

EXIT_FAILED: Final = 1
_CONNECT_S: Final = 1.0  # how long listening waits for an engine; without one there is no readiness


def run_front_end(orders: Orders, settings: Settings) -> int:
    """Serve HTTP on the inherited socket until told to leave, and return the exit status.

    Raises:
        BundleError: A bundle is damaged or foreign.
        CannotServe: There is no telling what to serve.
        ValueError: There is no socket to serve on.
    """
    if orders.listener is None:
        raise ValueError("a front end needs a socket to listen on")
    registry = GroupRegistry(orders.folder, orders.name)
    server = DrainingServer(
        create_front_end(orders, settings, registry), settings, MonotonicClock()
    )
    # uvicorn handles signals while it serves; told once more afterwards, this process has yet to
    # tidy up.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=[socket.socket(fileno=orders.listener)])
    registry.write()
    return 0 if server.started else EXIT_FAILED


def create_front_end(orders: Orders, settings: Settings, registry: GroupRegistry) -> Application:
    """Return the application of one front end.

    Raises:
        BundleError: A bundle is damaged or foreign.
        CannotServe: There is no telling what to serve.
    """
    models, clock = open_served(settings), MonotonicClock()
    engine = RemoteEngine(
        models,
        stage_costs=StageCosts(max_batch=settings.max_batch),
        limits=engine_limits(settings),
        clock=clock,
        observer=EngineMetrics(registry),
        front_end=FrontEnd(orders.index, orders.num_front_ends, orders.address),
    )
    decoder, runtime = Decoder(upload_limits(settings)), Runtime.read(orders)
    front = Front(
        models=models,
        engine=engine,
        backend_name=runtime.name,
        device=runtime.device,
        decoder=decoder,
        registry=registry,
        clock=clock,
    )
    return front.application(settings, _lifespan(engine, decoder, registry))


def _lifespan(engine: RemoteEngine, decoder: Decoder, registry: GroupRegistry) -> Lifespan:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await engine.connect(_CONNECT_S)
        writing = asyncio.create_task(registry.keep_written())
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            writing.cancel()
            await engine.close()
            decoder.close()

    return lifespan
