"""Whether requests should be sent here, and whether they are still taken."""

from collections.abc import Callable
from enum import Enum

from fastapi import APIRouter
from starlette.responses import Response

from service.api.encoding import json_response
from service.api.schemas import LiveResponse, ReadyResponse
from service.errors import NotReady, ShuttingDown


class Phase(Enum):
    """Where in its life the server is."""

    STARTING = "starting"  # nothing is taken yet
    SERVING = "serving"
    DRAINING = "draining"  # unready, so that balancers turn away; what comes is still taken
    CLOSING = "closing"  # what has begun is finished, nothing new is taken


class Health:
    """The server's readiness; owned by the composition root, read by every route.

    Safe to call from a signal handler: each change is one assignment.

    Args:
        is_engine_alive: False once the engine cannot answer any more.
        served: Returns ``name@version`` of all that is served.
    """

    def __init__(
        self, *, is_engine_alive: Callable[[], bool], served: Callable[[], tuple[str, ...]]
    ) -> None:
        self._is_engine_alive = is_engine_alive
        self._served = served
        self._phase = Phase.STARTING

    @property
    def phase(self) -> Phase:
        """Where in its life the server is."""
        return self._phase

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self._phase is Phase.SERVING and self._is_engine_alive()

    def open(self) -> None:
        """Take requests from now on, unless the end was announced before the start was over."""
        if self._phase is Phase.STARTING:
            self._phase = Phase.SERVING

    def drain(self) -> None:
        """Say from now on that requests should go elsewhere."""
        if self._phase is not Phase.CLOSING:
            self._phase = Phase.DRAINING

    def close(self) -> None:
        """Take no more requests."""
        self._phase = Phase.CLOSING

    def refuse_unless_open(self) -> None:
        """Let a request in that can be answered.

        Raises:
            NotReady: The server is starting, or its engine ended.
            ShuttingDown: It is about to end.
        """
        if self._phase is Phase.CLOSING:
            raise ShuttingDown
        if self._phase is Phase.STARTING or not self._is_engine_alive():
            raise NotReady

    def served(self) -> tuple[str, ...]:
        """Return ``name@version`` of all that is served."""
        return self._served()


def health_router(health: Health) -> APIRouter:
    """Return the routes that orchestrators ask; they take any parameter, and never need a key."""
    router = APIRouter(prefix="/health", tags=["operation"])

    @router.get("/live", response_model=LiveResponse, summary="Whether the process answers")
    async def live() -> Response:
        return json_response({"live": True})

    @router.get(
        "/ready",
        response_model=ReadyResponse,
        responses={503: {"model": ReadyResponse, "description": "Not now."}},
        summary="Whether requests should be sent here",
    )
    async def ready() -> Response:
        is_ready = health.is_ready
        members = {"ready": is_ready, "live": True, "models": list(health.served())}
        return json_response(members, status=200 if is_ready else 503)

    return router
