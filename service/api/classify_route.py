"""``POST /classify`` as FastAPI describes it; `classify_endpoint` handles it."""

from fastapi import APIRouter

from service.api.classify_endpoint import PATH, ClassifyEndpoint
from service.api.direct import DirectRoute
from service.api.openapi import INFERENCE_ERRORS, problem_responses, query_parameters, request_body
from service.api.parameters import ClassifyQuery
from service.api.schemas import ClassifyResponse
from service.settings import Settings


def classify_router(endpoint: ClassifyEndpoint, settings: Settings) -> APIRouter:
    """Return the route, described."""
    router = APIRouter(tags=["inference"], route_class=DirectRoute)
    router.add_api_route(
        PATH,
        endpoint.handle,
        methods=["POST"],
        response_model=ClassifyResponse,
        response_model_exclude_unset=True,
        responses=problem_responses(INFERENCE_ERRORS),
        summary="One image, one answer, by a deadline and within a budget",
        openapi_extra={
            "parameters": query_parameters(ClassifyQuery),
            "requestBody": request_body(
                "The bytes of one image (JPEG, PNG, WebP, GIF, BMP, TIFF), a form with one part "
                "`file`, or a uint8 array H×W×3 in the .npy format. The bytes decide, not the "
                f"type. At most {settings.max_body_mib} MiB and {settings.max_megapixels:g} "
                "megapixels.",
                whole=("image/*", "application/octet-stream", "application/x-npy"),
                field="file",
                many=False,
            ),
        },
    )
    return router
