"""``POST /batch``: from a request to a command, from answers to a response."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.answers import AnswerForm
from service.api.batch_answers import batch_response
from service.api.context import context_of
from service.api.direct import DirectRoute
from service.api.hangup import cancelled_on_hangup
from service.api.openapi import INFERENCE_ERRORS, problem_responses, query_parameters, request_body
from service.api.parameters import BatchQuery
from service.api.problems import PROBLEM_BY_ERROR
from service.api.query import parse_query
from service.api.reception import Reception
from service.api.schemas import BatchResponse
from service.api.services import BatchRoute
from service.commands import BatchCommand
from service.settings import Settings
from service.uploads import BatchUpload

PATH = "/batch"


class BatchEndpoint:
    """Handles ``POST /batch``.

    Args:
        service: Answers.
        reception: Lets requests in.
    """

    def __init__(self, service: BatchRoute, reception: Reception) -> None:
        self._service = service
        self._reception = reception

    async def handle(self, request: Request) -> Response:
        """Return an answer or an error for every image."""
        query = parse_query(request.query_params.multi_items(), BatchQuery)
        self._reception.health.refuse_unless_open()
        with self._reception.intake.account() as account:
            upload = await self._reception.intake.receive_batch(request, account)
            command = self._command(request, query, upload)
            async with cancelled_on_hangup(request.receive):
                done = await self._service.classify(command)
        self._reception.metrics.answered(
            PATH, decode_s=done.timing.decode_s, deadline=done.deadline
        )
        self._reception.metrics.batch_taken(len(done.images))
        for image in done.images:
            if image.error is not None:
                self._reception.metrics.problem_told(PROBLEM_BY_ERROR[type(image.error)].slug)
        return batch_response(done, AnswerForm(top_k=query.top_k, detail=command.detail))

    def _command(self, request: Request, query: BatchQuery, upload: BatchUpload) -> BatchCommand:
        context = context_of(request.scope)
        return BatchCommand(
            arrived_at=context.arrived_at,
            received_s=self._reception.clock.now() - context.arrived_at,
            held_up_s=context.held_up_s,
            upload=upload,
            model=query.model,
            deadline_s=None if query.deadline_ms is None else query.deadline_ms / 1000,
            budget_macs=query.macs,
            policy=query.policy,
            top_k=query.top_k,
            detail=query.detail is not None,
        )


def batch_router(endpoint: BatchEndpoint, settings: Settings) -> APIRouter:
    """Return the route, described."""
    router = APIRouter(tags=["inference"], route_class=DirectRoute)
    router.add_api_route(
        PATH,
        endpoint.handle,
        methods=["POST"],
        response_model=BatchResponse,
        responses=problem_responses(INFERENCE_ERRORS),
        summary="Many images under one shared budget, by equation (3)",
        openapi_extra={
            "parameters": query_parameters(BatchQuery),
            "requestBody": request_body(
                "Images as a form with parts `files`, as a zip or tar archive (directories, hidden "
                "files and `__MACOSX/` are skipped and counted), or as a uint8 array N×H×W×3 in "
                f"the .npy format. At most {settings.max_batch_body_mib} MiB, "
                f"{settings.max_batch_images} images, and {settings.max_megapixels:g} megapixels "
                "an image.",
                whole=("application/zip", "application/x-tar", "application/x-npy"),
                field="files",
                many=True,
            ),
        },
    )
    return router
