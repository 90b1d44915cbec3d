"""The application that a server runs: routes, problems and the entrance, joined."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.types import ASGIApp

from service.api.arrival import ArrivalClock
from service.api.batch_route import BatchEndpoint, batch_router
from service.api.body import BodyLimits, BufferLedger
from service.api.books import Books
from service.api.classify_endpoint import PATH as CLASSIFY_PATH
from service.api.classify_endpoint import ClassifyEndpoint
from service.api.classify_route import classify_router
from service.api.entrance import DirectPath, Entrance, FrontDesk
from service.api.failures import ProblemTeller
from service.api.health import Health, health_router
from service.api.intake import Intake
from service.api.lag import LoopLag
from service.api.models_route import models_router
from service.api.openapi import problem_component
from service.api.plan_route import plan_router
from service.api.reception import Reception
from service.api.request_metrics import RequestMetrics
from service.api.services import Services
from service.engine.clock import Clock, MonotonicClock
from service.metrics import EXPOSITION_TYPE, expose
from service.settings import Settings
from service.uploads import UploadLimits

Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[None]]

_DESCRIPTION: Final = """\
Image classification that answers on time and on budget.

Every route is also served under `/v1`, within which changes only add: accept unknown fields and
reasons. Budgets are multiply-accumulates (MACs) or FLOPs, 1 MAC = 2 FLOPs. Exits count from 0.
`*_ms` are milliseconds, fractions are fractions. Errors are RFC 9457 problems; unknown, repeated or
contradictory query parameters are one of them.
"""


@asynccontextmanager
async def nothing_to_start() -> AsyncIterator[None]:
    """Start and stop nothing, where whoever built the services has done so."""
    yield


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an application needs besides what it serves."""

    settings: Settings
    health: Health
    registry: CollectorRegistry  # exposed by ``/metrics``; the API's own families are added to it
    lifespan: Lifespan = nothing_to_start  # entered before the first request is taken
    clock: Clock = field(default_factory=MonotonicClock)


class Application(FastAPI):
    """FastAPI behind the entrance, which no request gets around, not even one that fails.

    Args:
        health: Whoever runs the application announces the end there.
        front_desk: Where requests are written down, and the route that goes around FastAPI; a
            server may hand such requests over without a detour through ASGI.
        options: FastAPI's.
    """

    def __init__(
        self,
        *,
        health: Health,
        front_desk: FrontDesk,
        **options: Any,  # noqa: ANN401 - FastAPI's own
    ) -> None:
        super().__init__(**options)
        self.health = health
        self.front_desk = front_desk

    def build_middleware_stack(self) -> ASGIApp:
        """Return everything a request goes through, outermost first."""
        return Entrance(super().build_middleware_stack(), self.front_desk)

    def openapi(self) -> dict[str, Any]:
        """Return the schema, with the problems that routes refer to."""
        schema = super().openapi()
        schema["components"]["schemas"].setdefault("ProblemResponse", problem_component())
        return schema


def create_application(services: Services, surroundings: Surroundings) -> Application:
    """Return the application that serves these services.

    Readiness begins when the lifespan has been entered and ends before it is left.
    """
    settings, health, clock = surroundings.settings, surroundings.health, surroundings.clock
    metrics = RequestMetrics(surroundings.registry)
    lag = LoopLag(clock, metrics.loop_lagged)
    arrivals = ArrivalClock(
        clock=clock, lag_s=lag.current_s, trust_request_start=settings.trust_request_start
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with surroundings.lifespan(), lag.running():
            health.open()
            try:
                yield
            finally:
                health.close()

    reception = Reception(health=health, intake=_intake(settings), clock=clock, metrics=metrics)
    teller = ProblemTeller(metrics)
    classify = ClassifyEndpoint(services.classify, reception, teller)
    app = Application(
        health=health,
        front_desk=FrontDesk(
            Books(arrivals, clock, metrics),
            DirectPath("POST", CLASSIFY_PATH, classify.serve, classify.start),
        ),
        title="anytime-server",
        version="1",
        description=_DESCRIPTION,
        servers=[{"url": "/"}, {"url": "/v1"}],
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    teller.install(app)
    app.include_router(classify_router(classify, settings))
    app.include_router(batch_router(BatchEndpoint(services.batch, reception), settings))
    app.include_router(plan_router(services.plan, health))
    app.include_router(models_router(services.models))
    app.include_router(health_router(health))
    app.include_router(_metrics_router(surroundings.registry))
    return app


def _intake(settings: Settings) -> Intake:
    return Intake(
        image=BodyLimits(settings.max_body_bytes, settings.body_timeout_s),
        batch=BodyLimits(settings.max_batch_body_bytes, settings.body_timeout_s),
        uploads=upload_limits(settings),
        ledger=BufferLedger(settings.max_buffered_bytes),
    )


def upload_limits(settings: Settings) -> UploadLimits:
    """Return what uploads are held to, by the API and by whoever decodes them."""
    return UploadLimits(
        max_pixels=settings.max_pixels,
        max_images=settings.max_batch_images,
        max_image_bytes=settings.max_body_bytes,
        max_batch_bytes=settings.max_batch_body_bytes,
    )


def _metrics_router(registry: CollectorRegistry) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", summary="Everything counted, for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(expose(registry), media_type=EXPOSITION_TYPE)

    return router
