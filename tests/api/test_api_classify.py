from collections.abc import AsyncIterator

import httpx
import pytest

from model_store.policies.choose import PolicyName
from service.api.schemas import BatchResponse, ClassifyResponse
from service.commands import BatchImage, DeadlineReport
from service.engine.request import ExitReason
from service.errors import (
    BackendFailed,
    DeadlineInfeasible,
    DeadlineMissed,
    EngineStopped,
    Overloaded,
    ServiceError,
)
from service.uploads import Upload, UploadKind
from tests.api.conftest import Api, answer_of, batch_done_of, classified_of, record_of

PNG = b"\x89PNG not really"


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail"} <= set(body)
    assert body["status"] == answer.status_code
    return answer.status_code, body["type"].removeprefix("/problems/")


async def test_an_image_becomes_a_command_with_the_defaults(api: Api):
    answer = await api.http.post("/classify", content=PNG)

    assert answer.status_code == 200
    command = api.classify.command
    assert command.upload == Upload(UploadKind.ENCODED, PNG)
    assert (command.model, command.deadline_s, command.budget_macs) == (None, None, None)
    assert (command.min_confidence, command.min_exit, command.max_exit) == (None, 0, None)
    assert (command.top_k, command.detail) == (5, False)


async def test_limits_reach_the_service_in_seconds_and_macs(api: Api):
    await api.http.post(
        "/classify?deadline_ms=25&budget_flops=9&min_confidence=0.5&min_exit=1&max_exit=2"
        "&top_k=3&detail=exits&model=net@2",
        content=PNG,
    )

    command = api.classify.command
    assert (command.deadline_s, command.budget_macs, command.min_confidence) == (0.025, 4, 0.5)
    assert (command.min_exit, command.max_exit, command.top_k) == (1, 2, 3)
    assert (command.detail, command.model) == (True, "net@2")


async def test_the_answer_is_as_the_schema_says(api: Api):
    answer = await api.http.post("/classify?detail=exits", content=PNG)

    ClassifyResponse.model_validate_json(answer.content)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "image/jpeg",
        "image/*",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
    ],
)
async def test_the_bytes_decide_and_not_the_header(api: Api, kind: str | None):
    headers = {"content-type": kind} if kind else {}

    answer = await api.http.post("/classify", content=PNG, headers=headers)

    assert answer.status_code == 200
    assert api.classify.command.upload == Upload(UploadKind.ENCODED, PNG)


async def test_a_form_may_bring_the_image_as_its_file(api: Api):
    answer = await api.http.post("/classify", files={"file": ("a.png", PNG, "image/png")})

    assert answer.status_code == 200
    assert api.classify.command.upload == Upload(UploadKind.ENCODED, PNG)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/mixed", "text/html"])
async def test_what_cannot_hold_an_image_is_refused_by_its_type(api: Api, kind: str):
    answer = await api.http.post("/classify", content=PNG, headers={"content-type": kind})

    assert problem(answer) == (415, "unsupported-media-type")
    assert api.classify.commands == []


async def test_an_array_must_be_one(api: Api):
    answer = await api.http.post(
        "/classify", content=PNG, headers={"content-type": "application/x-npy"}
    )

    assert problem(answer) == (400, "bad-request")


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (Overloaded(retry_after_s=0.2), 503, "overloaded"),
        (DeadlineInfeasible(minimum_s=0.01), 422, "deadline-infeasible"),
        (DeadlineMissed(elapsed_s=0.03), 504, "deadline-missed"),
        (BackendFailed("stage 1 at /opt/net"), 500, "inference-failed"),
        (EngineStopped(), 503, "shutting-down"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_the_service_refuses_is_told_as_a_problem(
    api: Api, error: ServiceError, status: int, slug: str
):
    api.classify.error = error

    answer = await api.http.post("/classify?deadline_ms=30", content=PNG)

    assert problem(answer) == (status, slug)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "/opt" not in answer.text


async def test_a_defect_is_told_without_its_traceback(api: Api):
    api.classify.error = RuntimeError("secret at /opt/x.py")

    answer = await api.http.post("/classify", content=PNG, headers={"x-request-id": "abc"})

    assert problem(answer) == (500, "internal-error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "abc"


async def test_deadlines_not_kept_are_counted_by_cause(api: Api):
    for error in (
        DeadlineInfeasible(minimum_s=1),
        DeadlineMissed(elapsed_s=1),
        Overloaded(retry_after_s=1),
    ):
        api.classify.error = error
        await api.http.post("/classify?deadline_ms=30", content=PNG)
    await api.http.post("/classify", content=PNG)
    api.classify.error = None
    api.classify.result = classified_of(deadline=DeadlineReport(0.03, -0.001))
    await api.http.post("/classify?deadline_ms=30", content=PNG)

    causes = ("infeasible", "missed", "overloaded", "late")
    missed = [api.counted("anytime_deadline_misses_total", cause=cause) for cause in causes]

    assert missed == [1, 1, 1, 1]
    assert api.counted("anytime_deadline_slack_seconds_count", route="/classify") == 1
    assert api.counted("anytime_problems_total", slug="overloaded") == 2


async def test_the_service_is_told_when_a_request_arrived_and_how_long_its_body_took(api: Api):
    async def slow_body() -> AsyncIterator[bytes]:
        yield PNG[:4]
        api.clock.instant += 0.5
        yield PNG[4:]

    await api.http.post("/classify", content=slow_body())

    assert api.classify.command.arrived_at == 1000.0
    assert api.classify.command.received_s == 0.5
    assert api.classify.command.upload.data == PNG


async def test_a_body_on_its_way_is_announced_and_its_place_held_until_the_end(api: Api):
    places: list[int] = []

    async def slow_body() -> AsyncIterator[bytes]:
        yield PNG[:4]
        places.append(api.classify.places_held)
        yield PNG[4:]

    await api.http.post("/classify?deadline_ms=30&min_exit=1", content=slow_body())

    (announced,) = api.classify.announced
    assert (announced.arrived_at, announced.deadline_s, announced.min_exit) == (1000.0, 0.03, 1)
    assert (places, api.classify.places_held) == ([1], 0)


async def test_what_has_no_chance_is_refused_before_its_body_is_read(api: Api):
    api.classify.refusal = Overloaded(retry_after_s=0.2)
    num_read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_read
        num_read += 1
        yield PNG

    answer = await api.http.post("/classify?deadline_ms=30", content=body())

    assert problem(answer) == (503, "overloaded")
    assert (num_read, api.classify.commands) == (0, [])
    assert api.counted("anytime_deadline_misses_total", cause="overloaded") == 1


async def test_a_place_is_given_back_where_the_body_is_no_image(api: Api):
    answer = await api.http.post(
        "/classify", content=PNG, headers={"content-type": "application/x-npy"}
    )

    assert problem(answer) == (400, "bad-request")
    assert api.classify.places_held == 0


async def test_nothing_is_taken_while_there_is_nobody_to_answer(api: Api):
    api.is_engine_alive[0] = False
    dead = await api.http.post("/classify", content=PNG)
    api.is_engine_alive[0] = True
    api.health.close()
    closed = await api.http.post("/classify", content=PNG)

    assert problem(dead) == (503, "not-ready")
    assert problem(closed) == (503, "shutting-down")
    assert int(closed.headers["retry-after"]) >= 1
    assert api.classify.commands == []


async def test_a_batch_becomes_a_command(api: Api):
    answer = await api.http.post(
        "/batch?budget_macs=500&policy=topk&deadline_ms=100&model=net&top_k=2&detail=exits",
        files=[("files", ("a.png", b"1")), ("files", ("b.png", b"22"))],
    )

    assert answer.status_code == 200
    command = api.batch.command
    assert [(part.filename, part.data) for part in command.upload.parts] == [
        ("a.png", b"1"),
        ("b.png", b"22"),
    ]
    assert (command.budget_macs, command.policy) == (500, PolicyName.TOPK)
    assert (command.deadline_s, command.model) == (0.1, "net")
    assert (command.top_k, command.detail) == (2, True)


async def test_the_answers_of_a_batch_are_as_the_schema_says(api: Api):
    answer = await api.http.post("/batch", files=[("files", ("a.png", b"1"))])

    BatchResponse.model_validate_json(answer.content)
    assert api.counted("anytime_batch_images_count") == 1


@pytest.mark.parametrize(
    ("kind", "body", "status", "slug"),
    [
        ("application/zip", b"PK\x03\x04 not a zip", 400, "bad-request"),
        ("application/x-npy", b"no array", 400, "bad-request"),
        ("application/json", b"x", 415, "unsupported-media-type"),
        ("image/png", b"x", 415, "unsupported-media-type"),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken", 400, "bad-request"),
        ("multipart/form-data", b"--x\r\n", 400, "bad-request"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 400, "bad-request"),
    ],
)
async def test_bodies_that_are_no_batch_are_refused(
    api: Api, kind: str, body: bytes, status: int, slug: str
):
    answer = await api.http.post("/batch", content=body, headers={"content-type": kind})

    assert problem(answer) == (status, slug)


async def test_an_image_of_a_batch_that_fails_alone_is_counted(api: Api):
    bad = BatchImage(0, "a.png", None, BackendFailed("x"), 110)
    api.batch.result = batch_done_of(bad)

    answer = await api.http.post("/batch", files=[("files", ("a.png", b"1"))])

    assert answer.json()["results"][0]["error"]["type"] == "/problems/inference-failed"
    assert api.counted("anytime_problems_total", slug="inference-failed") == 1


async def test_the_reason_of_an_exit_is_named_as_on_the_wire(api: Api):
    answer = answer_of(record_of(0, 1.0, 0.0, 0.0, 0.0), reason=ExitReason.MAX_EXIT)
    api.classify.result = classified_of(answer=answer)

    told = (await api.http.post("/classify", content=PNG)).json()

    assert told["exit"] == {"index": 0, "count": 2, "reason": "max_exit"}
