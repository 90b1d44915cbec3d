"""``GET /models``: what is served, what each exit costs and how long it takes."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.answers import milliseconds
from service.api.encoding import json_response
from service.api.openapi import problem_responses, query_parameters
from service.api.parameters import ModelQuery, NoQuery
from service.api.query import parse_query
from service.api.schemas import ModelResponse, ModelsResponse
from service.api.services import ModelsRoute
from service.commands import ExitInfo, ModelInfo, ModelVersions
from service.errors import InvalidParameter, ModelNotFound


def models_router(models: ModelsRoute) -> APIRouter:
    """Return both routes, described."""
    router = APIRouter(tags=["models"])

    @router.get(
        "/models",
        response_model=ModelsResponse,
        responses=problem_responses((InvalidParameter,)),
        summary="Everything that is served",
    )
    async def versions(request: Request) -> Response:
        parse_query(request.query_params.multi_items(), NoQuery)
        return json_response({"models": [versions_json(each) for each in models.versions()]})

    @router.get(
        "/models/{name}",
        response_model=ModelResponse,
        responses=problem_responses((ModelNotFound, InvalidParameter)),
        summary="One model: labels, input, costs and latencies of its exits",
        openapi_extra={"parameters": query_parameters(ModelQuery)},
    )
    async def describe(request: Request, name: str) -> Response:
        query = parse_query(request.query_params.multi_items(), ModelQuery)
        return json_response(model_info_json(models.describe(_reference(name, query.version))))

    return router


def versions_json(versions: ModelVersions) -> dict[str, Any]:
    """Return a name as `ServedName` describes it."""
    return {
        "name": versions.name,
        "versions": list(versions.versions),
        "default_version": versions.default_version,
    }


def model_info_json(info: ModelInfo) -> dict[str, Any]:
    """Return a model as `ModelResponse` describes it."""
    return {
        **versions_json(info.siblings),
        "version": info.key.version,
        "labels": list(info.labels),
        "input": {"height": info.height, "width": info.width, "channels": info.channels},
        "backend": info.backend,
        "device": info.device,
        "exits": [_exit_json(each) for each in info.exits],
    }


def _exit_json(info: ExitInfo) -> dict[str, Any]:
    return {
        "index": info.index,
        "cumulative_macs": info.cumulative_macs,
        "direct_macs": info.direct_macs,
        "holdout_accuracy": info.holdout_accuracy,
        "latency_ms": {
            str(batch_size): milliseconds(latency_s)
            for batch_size, latency_s in info.latency_s_by_batch_size.items()
        },
    }


def _reference(name: str, version: str | None) -> str:
    if version is None:
        return name
    if "@" in name:
        raise InvalidParameter(
            "version contradicts the path, which names one too", parameter="version"
        )
    return f"{name}@{version}"
