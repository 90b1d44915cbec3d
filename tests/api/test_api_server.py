import asyncio

import httpx
import pytest

from tests.api.conftest import Listen


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
    await run.closed()
    run.api.classify.may_answer.set()
    answer = await in_flight
    await run.serving

    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


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
