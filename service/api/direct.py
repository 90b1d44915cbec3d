"""Routes that FastAPI describes and does not handle.

What our handlers take is a request and nothing else; looking for dependencies, parameters and
bodies to inject cost a fifth of what the whole of the API costs for a request.
"""

from collections.abc import Callable, Coroutine
from typing import Any, cast

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


class DirectRoute(APIRoute):
    """Calls an asynchronous endpoint with the request alone, and sends the response it returns."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request: the endpoint itself."""
        return cast("Callable[[Request], Coroutine[Any, Any, Response]]", self.endpoint)
