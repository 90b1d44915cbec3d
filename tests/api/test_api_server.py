import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import httpx
import pytest

from service.api.server import DrainingServer
from service.settings import Settings
from tests.api.conftest import Api, FakeClock


class AnnouncedServer(DrainingServer):
    """Says when it listens."""

    def __init__(self, api: Api, clock: FakeClock, **settings: object) -> None:
        given = Settings.model_validate({"port": 0, **settings})
        super().__init__(api.app, given, clock)
        self.is_listening = asyncio.Event()

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        self.is_listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self.handle_exit(signal.SIGTERM, None)


class Run:
    """A server that serves, and what it serves."""

    def __init__(self, api: Api, server: AnnouncedServer, serving: asyncio.Task[None]) -> None:
        self.api = api
        self.server = server
        self.serving = serving
        self.http = httpx.AsyncClient(base_url=server.url)


Listen: TypeAlias = Callable[..., Awaitable[Run]]


@pytest.fixture
async def listen(api: Api) -> AsyncIterator[Listen]:
    """Serve on a free port of this machine, with a clock that a test moves."""
    runs: list[Run] = []

    async def start(**settings: object) -> Run:
        server = AnnouncedServer(api, api.clock, **settings)
        serving = asyncio.create_task(server.serve())
        await server.is_listening.wait()
        runs.append(Run(api, server, serving))
        return runs[-1]

    yield start
    for run in runs:
        await run.http.aclose()
        run.server.force_exit = run.server.should_exit = True
        with suppress(asyncio.CancelledError):
            await run.serving


async def test_a_server_that_is_told_to_leave_leaves(listen: Listen):
    run = await listen()
    assert (await run.http.get("/health/ready")).status_code == 200

    run.server.stop()
    await run.serving

    assert run.server.started
    with pytest.raises(httpx.ConnectError):
        await httpx.AsyncClient().get(f"{run.http.base_url}/health/live")


async def test_readiness_ends_at_once_and_serving_after_the_drain(listen: Listen):
    run = await listen(drain_s=5)
    run.server.stop()

    ready = await run.http.get("/health/ready")
    answer = await run.http.post("/classify", content=b"x")
    assert (ready.status_code, answer.status_code) == (503, 200)
    assert not run.serving.done()

    run.api.clock.instant += 5
    await run.serving


async def test_what_is_in_flight_is_finished_and_nothing_else_begun(listen: Listen):
    run = await listen()
    run.api.classify.may_answer = asyncio.Event()
    in_flight = asyncio.create_task(run.http.post("/classify", content=b"x"))
    await run.api.classify.is_waiting.wait()

    run.server.stop()
    await closed(run.api)
    run.api.classify.may_answer.set()
    answer = await in_flight
    await run.serving

    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


async def closed(api: Api) -> None:
    """Wait until the server takes nothing more."""
    transport = httpx.ASGITransport(api.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as inside:
        while (await inside.get("/plan?images=1")).json().get("status") != 503:
            await asyncio.to_thread(lambda: None)


async def test_a_second_signal_skips_the_drain(listen: Listen):
    run = await listen(drain_s=3600)

    run.server.stop()
    run.server.stop()
    await run.serving

    assert not run.server.force_exit


async def test_a_third_signal_skips_what_is_in_flight(listen: Listen):
    run = await listen(drain_s=3600)

    for _ in range(3):
        run.server.stop()

    assert run.server.force_exit


async def test_a_client_that_hangs_up_frees_its_place_over_a_real_connection(listen: Listen):
    run = await listen()
    run.api.classify.may_answer = asyncio.Event()
    request = asyncio.create_task(run.http.post("/classify", content=b"x"))
    await run.api.classify.is_waiting.wait()

    request.cancel()
    run.server.stop()
    await run.serving

    assert run.api.classify.was_cancelled
