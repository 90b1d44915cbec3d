import asyncio
import json
import logging

import pytest

from service.api.arrival import MAX_PROXY_DELAY_S, ArrivalClock, unix_time_s
from service.api.lag import INTERVAL_S, TIMER_GRANULARITY_S, LoopLag
from tests.api.conftest import Api, FakeClock, StartApi

NOW_US = 1_700_000_000_000_000


def arrivals(*, lag_s: float = 0.0, trusted: bool = True) -> ArrivalClock:
    return ArrivalClock(
        clock=FakeClock(),
        lag_s=lambda: lag_s,
        trust_request_start=trusted,
        wall_s=lambda: NOW_US / 1e6,
    )


def test_a_request_arrived_before_the_event_loop_got_round_to_it():
    assert arrivals(lag_s=0.25).arrived_at(None) == 999.75


@pytest.mark.parametrize(
    ("sent", "delay_s"),
    [
        (f"t={NOW_US - 500_000}", 0.5),
        (f" t={NOW_US - 500_000} ", 0.5),
        (f"t={NOW_US}", 0.0),
        (f"t={NOW_US + 1_000_000}", 0.0),
        (f"t={NOW_US - int(2e6 * MAX_PROXY_DELAY_S)}", 0.0),
        (f"t={NOW_US // 1000}", 0.0),
        (f"{NOW_US}", 0.0),
        ("t=soon", 0.0),
        ("t=" + "9" * 400, 0.0),
        ("", 0.0),
    ],
)
def test_a_trusted_proxy_moves_the_start_back_where_that_can_be(sent: str, delay_s: float):
    arrived_at = arrivals().arrived_at(sent.encode())

    assert arrived_at == pytest.approx(1000 - delay_s, abs=1e-6)


def test_the_longer_of_both_delays_counts():
    early, late = f"t={NOW_US - 100_000}".encode(), f"t={NOW_US - 900_000}".encode()

    assert arrivals(lag_s=0.5).arrived_at(early) == 999.5
    assert arrivals(lag_s=0.5).arrived_at(late) == pytest.approx(999.1)


def test_nobody_is_believed_unless_that_is_set():
    assert arrivals(trusted=False).arrived_at(f"t={NOW_US - 500_000}".encode()) == 1000.0


def test_the_wall_clock_is_read_in_unix_seconds():
    assert unix_time_s() > 1.6e9


async def test_the_setting_decides_whether_a_proxy_is_believed(start_api: StartApi):
    headers = {"x-request-start": f"t={int(1e6 * (unix_time_s() - 5))}"}
    trusting = await start_api(trust_request_start=True)
    wary = await start_api()

    for api in (trusting, wary):
        await api.http.post("/classify", content=b"x", headers=headers)

    assert trusting.classify.command.arrived_at == pytest.approx(995, abs=1)
    assert wary.classify.command.arrived_at == 1000.0
    assert trusting.classify.command.held_up_s == pytest.approx(5, abs=1)
    assert wary.classify.command.held_up_s == 0


async def test_a_loop_that_is_held_up_lags_by_as_much():
    clock, samples = FakeClock(), asyncio.Queue[float]()
    lag = LoopLag(clock, samples.put_nowait)

    async with lag.running():
        assert lag.current_s() == 0.0
        clock.instant += INTERVAL_S + 0.1
        overdue_s = lag.current_s()
        sampled_s = await samples.get()

        just_after_s = lag.current_s()
        await turns_of_the_loop(10)
        later_s = lag.current_s()

    assert overdue_s == sampled_s == pytest.approx(0.1 - TIMER_GRANULARITY_S)
    assert (just_after_s, later_s) == (sampled_s, 0.0)


async def turns_of_the_loop(count: int) -> None:
    """Let everything else have so many turns."""
    for _ in range(count):
        turned = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turned.set_result, None)
        await turned


async def test_a_loop_that_keeps_up_does_not_lag():
    clock, samples = FakeClock(), asyncio.Queue[float]()

    async with LoopLag(clock, samples.put_nowait).running():
        assert await samples.get() == 0.0
        assert await samples.get() == 0.0


async def test_a_request_id_is_echoed(api: Api):
    for path in ("/models", "/nothing-here", "/v1/models"):
        answer = await api.http.get(path, headers={"x-request-id": "abc 123~"})

        assert answer.headers["x-request-id"] == "abc 123~"


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "caf\xe9", "a\tb"])
async def test_a_request_id_that_cannot_be_kept_is_replaced(api: Api, sent: str | None):
    headers = [] if sent is None else [(b"x-request-id", sent.encode("latin-1"))]

    answer = await api.http.get("/models", headers=headers)

    made = answer.headers.get_list("x-request-id")
    assert len(made) == 1
    assert made[0] != sent
    assert made[0].isalnum()


async def test_every_route_is_served_under_its_version_too(api: Api):
    for path in ("/models", "/models/net", "/plan?images=1", "/health/ready", "/openapi.json"):
        plain, versioned = await api.http.get(path), await api.http.get(f"/v1{path}")

        assert (versioned.status_code, versioned.json()) == (plain.status_code, plain.json())
    assert (await api.http.get("/v1/docs")).status_code == 200
    assert (await api.http.get("/v1/metrics")).status_code == 200
    assert (await api.http.get("/v1/v1/models")).status_code == 404
    assert (await api.http.get("/v12/models")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/nothing-here", 404, "not-found"),
        ("GET", "/models/", 404, "not-found"),
        ("GET", "/classify", 405, "method-not-allowed"),
        ("DELETE", "/v1/models", 405, "method-not-allowed"),
    ],
)
async def test_what_is_not_there_is_a_problem(
    api: Api, method: str, path: str, status: int, slug: str
):
    answer = await api.http.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"/problems/{slug}"
    assert ("allow" in answer.headers) == (status == 405)


async def test_every_request_leaves_one_line_in_the_log(api: Api, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="service.api.books"):
        await api.http.get("/health/ready")
        await api.http.get("/v1/models/net")
        await api.http.post("/classify?x=1")

    lines = [record for record in caplog.records if record.name == "service.api.books"]
    assert [vars(line)["route"] for line in lines] == ["/models/{name}", "/classify"]
    assert [vars(line)["outcome"] for line in lines] == ["ok", "invalid-parameter"]
    assert [vars(line)["status"] for line in lines] == [200, 422]


async def test_requests_are_counted_by_route_and_outcome(api: Api):
    await api.http.post("/classify", content=b"x")
    await api.http.post("/v1/classify", content=b"x")
    await api.http.get("/nothing-here")

    counted = [
        api.counted("anytime_requests_total", route=route, outcome=outcome)
        for route, outcome in (("/classify", "ok"), ("unmatched", "not-found"))
    ]

    assert counted == [2, 1]
    assert api.counted("anytime_requests_in_flight") == 0


async def test_sockets_that_are_no_http_are_left_to_the_framework(api: Api):
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/classify", "headers": [], "query_string": b""}
    await api.app(scope, receive, send)  # type: ignore[arg-type]  # plain dicts are messages too

    assert json.loads(json.dumps(sent[0]))["type"] == "websocket.close"
