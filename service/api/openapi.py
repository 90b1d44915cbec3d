"""What the schema says beyond what FastAPI finds out: parameters, bodies and problems."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel

from service.api.problems import (
    INTERNAL_ERROR,
    PROBLEM_BY_ERROR,
    PROBLEM_MEDIA_TYPE,
    ProblemKind,
)
from service.api.schemas import ProblemResponse
from service.errors import (
    BackendFailed,
    BadRequest,
    BudgetTooSmall,
    DeadlineInfeasible,
    DeadlineMissed,
    ImageUndecodable,
    InvalidParameter,
    ModelNotFound,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    ServiceError,
    ShuttingDown,
    UnsupportedMediaType,
)

_BINARY: Final = {"type": "string", "format": "binary"}


INFERENCE_ERRORS: Final[tuple[type[ServiceError], ...]] = (
    BadRequest,
    ModelNotFound,
    RequestTimeout,
    PayloadTooLarge,
    UnsupportedMediaType,
    InvalidParameter,
    ImageUndecodable,
    BudgetTooSmall,
    DeadlineInfeasible,
    BackendFailed,
    Overloaded,
    NotReady,
    ShuttingDown,
    DeadlineMissed,
)
"""What a route that runs the network may answer instead."""


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the parameters of a query as OpenAPI describes them."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": described.get("description", ""),
            "schema": _without_null(described),
        }
        for name, described in schema.get("properties", {}).items()
    ]


def problem_responses(
    errors: Sequence[type[ServiceError]], *, others: Sequence[ProblemKind] = (INTERNAL_ERROR,)
) -> dict[int | str, dict[str, Any]]:
    """Return the responses that refuse, by status, each with the types it may have."""
    kinds = dict.fromkeys([*(PROBLEM_BY_ERROR[error] for error in errors), *others])
    by_status: dict[HTTPStatus, list[ProblemKind]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        int(status): _problem_response(status, found) for status, found in sorted(by_status.items())
    }


def request_body(
    description: str, *, whole: Sequence[str], field: str, many: bool
) -> dict[str, Any]:
    """Return a body that may be sent as it is or as a form.

    Args:
        description: With the limits that hold.
        whole: Media types of a body sent as it is.
        field: Name of the form's parts.
        many: Whether there may be several.
    """
    part: Mapping[str, Any] = {"type": "array", "items": _BINARY} if many else _BINARY
    form = {"type": "object", "required": [field], "properties": {field: part}}
    content = {media_type: {"schema": _BINARY} for media_type in whole}
    return {
        "required": True,
        "description": description,
        "content": {**content, "multipart/form-data": {"schema": form}},
    }


def problem_component() -> dict[str, Any]:
    """Return the schema of a problem, named in every response that refuses."""
    return ProblemResponse.model_json_schema()


def _problem_response(status: HTTPStatus, kinds: Sequence[ProblemKind]) -> dict[str, Any]:
    described = "; ".join(f"`{kind.slug}`: {kind.title}" for kind in kinds)
    response: dict[str, Any] = {
        "description": described,
        "content": {
            PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemResponse"}}
        },
    }
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response["headers"] = {
            "Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer"}}
        }
    return response


def _without_null(described: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter is absent, never null."""
    schema = {key: value for key, value in described.items() if key not in {"anyOf", "description"}}
    if schema.get("default", 0) is None:
        del schema["default"]
    for choice in described.get("anyOf", ()):
        if choice.get("type") != "null":
            schema.update(choice)
    return schema
