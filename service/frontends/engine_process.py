"""The engine process: everything of a server but HTTP, behind a Unix socket. Composition root."""

import asyncio
import os
import signal
from functools import partial
from importlib import import_module

from service.app import BackendBuilder, EngineRoom, furnish
from service.engine.clock import MonotonicClock
from service.engine.outbox import call_on
from service.frontends.group_metrics import GroupRegistry
from service.frontends.host import EngineHost
from service.frontends.orders import Orders, Runtime
from service.settings import Settings


def run_engine(orders: Orders, settings: Settings) -> int:
    """Warm up, serve front ends until told to leave, and return the exit status.

    Raises:
        BundleError: A bundle is damaged or foreign.
        CannotServe: There is no telling what to serve, or by what.
        BackendFailed: A graph does not fit its manifest, or the device is not there.
    """
    # A terminal interrupts everybody at once; this process goes last, when its supervisor says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    registry, clock = GroupRegistry(orders.folder, orders.name), MonotonicClock()
    room = furnish(settings, _builder(orders), registry, clock)
    Runtime(name=room.backend.name, device=room.backend.device).write(orders)
    try:
        asyncio.run(_serve(orders, settings, room, registry))
    finally:
        registry.write()
    return 0


async def _serve(
    orders: Orders, settings: Settings, room: EngineRoom, registry: GroupRegistry
) -> None:
    with room.run(wedged_s=settings.wedged_s, last_words=registry.write):
        loop, leaving = asyncio.get_running_loop(), asyncio.Event()
        # The loop's own handlers end with it, and being told once more would then be the end of
        # this process before it has tidied up.
        signal.signal(signal.SIGTERM, lambda *_: call_on(loop, leaving.set))
        host = EngineHost(room.engine, room.models, clock=MonotonicClock())
        serving = asyncio.gather(
            host.serve(orders.address, listening=partial(_say_ready, orders)),
            registry.keep_written(),
        )
        serving.add_done_callback(lambda _: leaving.set())  # it ends of itself only by a defect
        await leaving.wait()
        if serving.done():
            serving.result()
        # Front ends leave first; where nobody told them to, they get no longer than their limit.
        try:
            await asyncio.wait_for(host.deserted(), settings.shutdown_timeout_s)
        except TimeoutError:
            host.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def _say_ready(orders: Orders) -> None:
    if orders.ready is not None:
        os.write(orders.ready, b"1")
        os.close(orders.ready)


def _builder(orders: Orders) -> BackendBuilder:
    module, _, name = orders.build.partition(":")
    build: BackendBuilder = getattr(import_module(module), name)
    return build
