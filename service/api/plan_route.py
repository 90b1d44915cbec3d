"""``GET /plan``: what a budget would buy."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.budget_answers import plan_json
from service.api.health import Health
from service.api.openapi import problem_responses, query_parameters
from service.api.parameters import PlanQuery
from service.api.query import parse_query
from service.api.schemas import PlanResponse
from service.api.services import PlanRoute
from service.commands import PlanCommand
from service.errors import BudgetTooSmall, InvalidParameter, ModelNotFound, NotReady, ShuttingDown


def plan_router(service: PlanRoute, health: Health) -> APIRouter:
    """Return the route, described."""
    router = APIRouter(tags=["inference"])

    @router.get(
        "/plan",
        response_model=PlanResponse,
        responses=problem_responses(
            (ModelNotFound, InvalidParameter, BudgetTooSmall, NotReady, ShuttingDown)
        ),
        summary="What a budget would buy; no image is sent",
        openapi_extra={"parameters": query_parameters(PlanQuery)},
    )
    async def plan(request: Request) -> Response:
        query = parse_query(request.query_params.multi_items(), PlanQuery)
        health.refuse_unless_open()
        command = PlanCommand(
            images=query.images, budget_macs=query.macs, policy=query.policy, model=query.model
        )
        return Response(plan_json(service.plan(command)), media_type="application/json")

    return router
