"""``POST /classify``: from a request to a command, from an answer to a response."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.answers import AnswerForm, classify_json
from service.api.context import context_of
from service.api.direct import DirectRoute
from service.api.hangup import cancelled_on_hangup
from service.api.openapi import INFERENCE_ERRORS, problem_responses, query_parameters, request_body
from service.api.parameters import ClassifyQuery
from service.api.query import parse_query
from service.api.reception import Reception
from service.api.schemas import ClassifyResponse
from service.api.services import ClassifyRoute
from service.commands import ClassifyCommand
from service.settings import Settings
from service.uploads import Upload

PATH = "/classify"


class ClassifyEndpoint:
    """Handles ``POST /classify``.

    Args:
        service: Answers.
        reception: Lets requests in.
    """

    def __init__(self, service: ClassifyRoute, reception: Reception) -> None:
        self._service = service
        self._reception = reception

    async def handle(self, request: Request) -> Response:
        """Return the answer of the deepest exit that the limits allow."""
        query = parse_query(request.query_params.multi_items(), ClassifyQuery)
        self._reception.health.refuse_unless_open()
        with self._reception.intake.account() as account:
            upload = await self._reception.intake.receive_image(request, account)
            command = self._command(request, query, upload)
            async with cancelled_on_hangup(request.receive):
                done = await self._service.classify(command)
        self._reception.metrics.answered(
            PATH, decode_s=done.timing.decode_s, deadline=done.deadline
        )
        form = AnswerForm(top_k=query.top_k, detail=command.detail)
        return Response(classify_json(done, form), media_type="application/json")

    def _command(self, request: Request, query: ClassifyQuery, upload: Upload) -> ClassifyCommand:
        context = context_of(request.scope)
        return ClassifyCommand(
            arrived_at=context.arrived_at,
            received_s=self._reception.clock.now() - context.arrived_at,
            held_up_s=context.held_up_s,
            upload=upload,
            model=query.model,
            deadline_s=None if query.deadline_ms is None else query.deadline_ms / 1000,
            budget_macs=query.macs,
            min_confidence=query.min_confidence,
            min_exit=query.min_exit,
            max_exit=query.max_exit,
            top_k=query.top_k,
            detail=query.detail is not None,
        )


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
