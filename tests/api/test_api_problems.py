import json
import re
from pathlib import Path

import pytest
from pydantic import JsonValue

from service.api.problem_answer import write_problem
from service.api.problems import ALL_KINDS, PROBLEM_BY_ERROR, ceil_ms, problem_of
from service.errors import (
    BackendFailed,
    BadRequest,
    BudgetTooSmall,
    DeadlineInfeasible,
    DeadlineMissed,
    EngineStopped,
    ImageUndecodable,
    InvalidParameter,
    ModelNotFound,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    ReplicaLost,
    RequestTimeout,
    ServiceError,
    ShuttingDown,
    UnsupportedMediaType,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"

CASES: list[tuple[ServiceError, int, str, dict[str, JsonValue]]] = [
    (BadRequest("x"), 400, "bad-request", {}),
    (
        InvalidParameter("x", parameter="a", nearest="b"),
        422,
        "invalid-parameter",
        {"parameter": "a", "nearest": "b"},
    ),
    (
        UnsupportedMediaType("text/plain", accepted=("image/*",)),
        415,
        "unsupported-media-type",
        {"accepted": ["image/*"]},
    ),
    (
        PayloadTooLarge("the body", limit=5, unit="bytes", actual=7),
        413,
        "payload-too-large",
        {"limit": 5, "unit": "bytes", "actual": 7},
    ),
    (RequestTimeout(limit_s=2), 408, "request-timeout", {"limit_ms": 2000.0}),
    (ImageUndecodable("x"), 422, "image-undecodable", {}),
    (
        ModelNotFound("a", available=("b@1",)),
        404,
        "model-not-found",
        {"model": "a", "available": ["b@1"]},
    ),
    (
        BudgetTooSmall(minimum_macs=7),
        422,
        "budget-infeasible",
        {"minimum_macs": 7, "minimum_flops": 14},
    ),
    (DeadlineInfeasible(minimum_s=0.0012), 422, "deadline-infeasible", {"minimum_ms": 1.2}),
    (Overloaded(retry_after_s=0.25), 503, "overloaded", {"retry_after_ms": 250.0}),
    (NotReady(), 503, "not-ready", {"retry_after_ms": 1000.0}),
    (ShuttingDown(), 503, "shutting-down", {"retry_after_ms": 1000.0}),
    (DeadlineMissed(elapsed_s=0.04), 504, "deadline-missed", {"elapsed_ms": 40.0}),
    (BackendFailed("/opt/model.onnx is broken"), 500, "inference-failed", {}),
    (ReplicaLost(retry_after_s=2), 503, "replica-lost", {"retry_after_ms": 2000.0}),
    (EngineStopped(), 503, "shutting-down", {"retry_after_ms": 1000.0}),
]


def leaves(kind: type[ServiceError]) -> set[type[ServiceError]]:
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*map(leaves, below))


def test_every_error_a_caller_can_see_has_a_status():
    assert leaves(ServiceError) == set(PROBLEM_BY_ERROR)
    assert {type(error) for error, *_ in CASES} == set(PROBLEM_BY_ERROR)


@pytest.mark.parametrize(
    ("error", "status", "slug", "numbers"), CASES, ids=[type(case[0]).__name__ for case in CASES]
)
def test_a_problem_says_what_the_caller_needs_to_act(
    error: ServiceError, status: int, slug: str, numbers: dict[str, JsonValue]
):
    told = problem_of(error).as_json()

    assert told.pop("title")
    assert told.pop("detail")
    assert told == {"type": f"/problems/{slug}", "status": status, **numbers}


@pytest.mark.parametrize(
    "error", [case[0] for case in CASES], ids=lambda error: type(error).__name__
)
def test_what_is_joined_from_pieces_is_the_whole_problem(error: ServiceError):
    problem = problem_of(error)

    written = json.loads(write_problem(problem))

    assert list(written.items()) == list(problem.as_json().items())


def test_what_a_caller_sent_is_escaped_where_it_is_quoted_back():
    problem = problem_of(InvalidParameter('"}\n\u2028é', parameter='a"b', nearest=None))

    assert json.loads(write_problem(problem)) == problem.as_json()


def test_what_a_runtime_says_of_its_files_is_not_passed_on():
    assert "model.onnx" not in str(problem_of(BackendFailed("/opt/model.onnx")).as_json())


@pytest.mark.parametrize(("seconds", "header"), [(0.001, "1"), (1.0, "1"), (1.2, "2"), (75, "75")])
def test_retry_after_is_told_in_whole_seconds_rounded_up(seconds: float, header: str):
    assert problem_of(Overloaded(retry_after_s=seconds)).headers() == {"Retry-After": header}


def test_what_would_fare_no_better_later_has_no_retry_after():
    assert problem_of(ImageUndecodable("x")).headers() == {}


@pytest.mark.parametrize(
    ("seconds", "told_ms"), [(0.0, 0.001), (1e-9, 0.001), (0.0012, 1.2), (0.0012001, 1.201)]
)
def test_a_minimum_is_never_told_too_small(seconds: float, told_ms: float):
    assert ceil_ms(seconds) == told_ms


def test_messages_hold_values_and_units():
    assert str(PayloadTooLarge("the body", limit=5, unit="bytes", actual=7)) == (
        "the body has 7 bytes, the limit is 5 bytes"
    )
    assert str(PayloadTooLarge("the form", limit=5, unit="images")) == (
        "the form has more than the limit of 5 images"
    )
    assert "none" in str(ModelNotFound("a", available=()))


def test_every_problem_is_documented_with_its_status():
    rows = re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", DOCUMENT.read_text(), re.M)

    assert {(int(status), slug) for status, slug in rows} == {
        (int(kind.status), kind.slug) for kind in ALL_KINDS
    }
