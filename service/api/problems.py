"""What a caller is told instead of an answer: RFC 9457 problems, one table for all errors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple

from pydantic import JsonValue

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

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_ENGINE_RETRY_S: Final = 1.0  # how soon a replacement may be there; nobody knows


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One row of the table of errors in the documentation."""

    slug: str
    title: str
    status: HTTPStatus


class Problem(NamedTuple):
    """One problem as it is told: its kind, what happened, and the numbers needed to act on it."""

    kind: ProblemKind
    detail: str
    numbers: Mapping[str, JsonValue] = MappingProxyType({})
    retry_after_s: float | None = None

    def as_json(self) -> dict[str, JsonValue]:
        """Return the members of the problem document."""
        members: dict[str, JsonValue] = {
            "type": f"/problems/{self.kind.slug}",
            "title": self.kind.title,
            "status": int(self.kind.status),
            "detail": self.detail,
            **self.numbers,
        }
        if self.retry_after_s is not None:
            members["retry_after_ms"] = ceil_ms(self.retry_after_s)
        return members

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


INFERENCE_FAILED: Final = ProblemKind(
    "inference-failed", "The network failed on this request", HTTPStatus.INTERNAL_SERVER_ERROR
)
INTERNAL_ERROR: Final = ProblemKind(
    "internal-error", "A defect of the server", HTTPStatus.INTERNAL_SERVER_ERROR
)
NOT_FOUND: Final = ProblemKind("not-found", "There is nothing here", HTTPStatus.NOT_FOUND)
METHOD_NOT_ALLOWED: Final = ProblemKind(
    "method-not-allowed", "The route has no such method", HTTPStatus.METHOD_NOT_ALLOWED
)
BAD_REQUEST: Final = ProblemKind(
    "bad-request", "The body or the request is malformed", HTTPStatus.BAD_REQUEST
)
SHUTTING_DOWN: Final = ProblemKind(
    "shutting-down", "The server is shutting down", HTTPStatus.SERVICE_UNAVAILABLE
)

PROBLEM_BY_ERROR: Final[dict[type[ServiceError], ProblemKind]] = {
    BadRequest: BAD_REQUEST,
    InvalidParameter: ProblemKind(
        "invalid-parameter", "A parameter cannot be meant", HTTPStatus.UNPROCESSABLE_ENTITY
    ),
    UnsupportedMediaType: ProblemKind(
        "unsupported-media-type",
        "Bodies of this type are not read",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ),
    PayloadTooLarge: ProblemKind(
        "payload-too-large", "A limit on size is exceeded", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    ),
    RequestTimeout: ProblemKind(
        "request-timeout", "The body came too slowly", HTTPStatus.REQUEST_TIMEOUT
    ),
    ImageUndecodable: ProblemKind(
        "image-undecodable", "The bytes are no image", HTTPStatus.UNPROCESSABLE_ENTITY
    ),
    ModelNotFound: ProblemKind("model-not-found", "No such model", HTTPStatus.NOT_FOUND),
    BudgetTooSmall: ProblemKind(
        "budget-infeasible", "The budget buys no answer", HTTPStatus.UNPROCESSABLE_ENTITY
    ),
    DeadlineInfeasible: ProblemKind(
        "deadline-infeasible", "No server is that fast", HTTPStatus.UNPROCESSABLE_ENTITY
    ),
    Overloaded: ProblemKind(
        "overloaded", "There is too much to do", HTTPStatus.SERVICE_UNAVAILABLE
    ),
    NotReady: ProblemKind("not-ready", "The server is not ready", HTTPStatus.SERVICE_UNAVAILABLE),
    ShuttingDown: SHUTTING_DOWN,
    DeadlineMissed: ProblemKind(
        "deadline-missed", "No exit was reached in time", HTTPStatus.GATEWAY_TIMEOUT
    ),
    BackendFailed: INFERENCE_FAILED,
    ReplicaLost: ProblemKind(
        "replica-lost", "This server is being replaced", HTTPStatus.SERVICE_UNAVAILABLE
    ),
    EngineStopped: SHUTTING_DOWN,
}

ALL_KINDS: Final[tuple[ProblemKind, ...]] = tuple(
    dict.fromkeys([*PROBLEM_BY_ERROR.values(), NOT_FOUND, METHOD_NOT_ALLOWED, INTERNAL_ERROR])
)
"""Everything a caller can be told."""


def problem_of(error: ServiceError) -> Problem:
    """Return what a caller is told of an error.

    What went wrong inside a runtime goes to the log, not to the caller: its messages quote paths.
    """
    kind = PROBLEM_BY_ERROR[type(error)]
    detail = str(error)
    if isinstance(error, BackendFailed):
        detail = "a stage of the network failed before any exit had answered"
    return Problem(kind, detail, numbers_of(error), retry_after_of(error))


def retry_after_of(error: ServiceError) -> float | None:
    """Return after how many seconds the same request may fare better; None where it would not."""
    if isinstance(error, Overloaded | NotReady | ShuttingDown | ReplicaLost):
        return error.retry_after_s
    return _ENGINE_RETRY_S if isinstance(error, EngineStopped) else None


def ceil_ms(seconds: float) -> float:
    """Return milliseconds with three decimals, rounded up: what is too little must not be told."""
    return max(1, math.ceil(seconds * 1e6 - 1e-6)) / 1000


@singledispatch
def numbers_of(error: ServiceError) -> dict[str, JsonValue]:
    """Return the numbers and names that a caller needs to do better."""
    del error
    return {}


@numbers_of.register
def _(error: InvalidParameter) -> dict[str, JsonValue]:
    return {"parameter": error.parameter, "nearest": error.nearest}


@numbers_of.register
def _(error: UnsupportedMediaType) -> dict[str, JsonValue]:
    return {"accepted": list(error.accepted)}


@numbers_of.register
def _(error: PayloadTooLarge) -> dict[str, JsonValue]:
    return {"limit": error.limit, "unit": error.unit, "actual": error.actual}


@numbers_of.register
def _(error: RequestTimeout) -> dict[str, JsonValue]:
    return {"limit_ms": ceil_ms(error.limit_s)}


@numbers_of.register
def _(error: ModelNotFound) -> dict[str, JsonValue]:
    return {"model": error.reference, "available": list(error.available)}


@numbers_of.register
def _(error: BudgetTooSmall) -> dict[str, JsonValue]:
    return {"minimum_macs": error.minimum_macs, "minimum_flops": 2 * error.minimum_macs}


@numbers_of.register
def _(error: DeadlineInfeasible) -> dict[str, JsonValue]:
    return {"minimum_ms": ceil_ms(error.minimum_s)}


@numbers_of.register
def _(error: DeadlineMissed) -> dict[str, JsonValue]:
    return {"elapsed_ms": ceil_ms(error.elapsed_s)}
