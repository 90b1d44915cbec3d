"""From exceptions to problems: ours, the framework's, and those nobody expected."""

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.context import RequestContext, context_of
from service.api.exchange import Reply, response_of
from service.api.hangup import ClientGone
from service.api.problem_answer import write_problem
from service.api.problems import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    PROBLEM_MEDIA_TYPE,
    Problem,
    problem_of,
)
from service.api.request_metrics import RequestMetrics
from service.errors import (
    DeadlineInfeasible,
    DeadlineMissed,
    Overloaded,
    RequestTimeout,
    ServiceError,
)

_KIND_BY_STATUS: Final = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}
_MISS_CAUSES: Final = ((DeadlineInfeasible, "infeasible"), (DeadlineMissed, "missed"))

_MEDIA_TYPE: Final = PROBLEM_MEDIA_TYPE.encode()

HUNG_UP: Final = "hung-up"

logger = logging.getLogger(__name__)


class SilentResponse(Response):
    """Sends nothing: there is nobody to send it to."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave the connection to the server, which knows that it is closed."""


class ProblemTeller:
    """Answers exceptions by problems, and counts them.

    Args:
        metrics: Told every problem.
    """

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics

    def install(self, app: FastAPI) -> None:
        """Make an application answer every exception this way."""
        app.add_exception_handler(ServiceError, self._tell_refusal)
        app.add_exception_handler(ClientGone, self._tell_nobody)
        app.add_exception_handler(HTTPException, self._tell_framework)
        app.add_exception_handler(Exception, self._tell_defect)

    def refusal(self, error: ServiceError, context: RequestContext, *, has_deadline: bool) -> Reply:
        """Return what a caller is told of an error of ours.

        Args:
            error: Any.
            context: Of the request; learns the outcome.
            has_deadline: Whether the request named one.
        """
        problem = problem_of(error)
        cause = deadline_miss_cause(error, has_deadline=has_deadline)
        if cause is not None:
            self._metrics.deadline_missed(cause)
        if problem.kind.status is HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("inference failed", exc_info=error)
        headers = problem.headers()
        if isinstance(error, RequestTimeout):
            headers["Connection"] = "close"  # or the rest of the body would still be waited for
        return self._reply(problem, context, headers)

    def defect(self, context: RequestContext) -> Reply:
        """Return what a caller is told of an exception that nobody expected."""
        problem = Problem(INTERNAL_ERROR, "the request met a defect; the log knows its id")
        return self._reply(problem, context, {})

    async def _tell_refusal(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, ServiceError):
            raise error
        has_deadline = "deadline_ms" in request.query_params
        context = context_of(request.scope)
        return response_of(self.refusal(error, context, has_deadline=has_deadline))

    async def _tell_nobody(self, request: Request, error: Exception) -> Response:
        del error
        context_of(request.scope).outcome = HUNG_UP
        return SilentResponse()

    async def _tell_framework(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        kind = _KIND_BY_STATUS.get(error.status_code, BAD_REQUEST)
        problem = Problem(kind, "/openapi.json describes what there is")
        headers = dict(error.headers or {})
        return response_of(self._reply(problem, context_of(request.scope), headers))

    async def _tell_defect(self, request: Request, error: Exception) -> Response:
        # The caller of this raises the error again, and the server in front logs its traceback.
        del error
        return response_of(self.defect(context_of(request.scope)))

    def _reply(self, problem: Problem, context: RequestContext, headers: dict[str, str]) -> Reply:
        context.outcome = problem.kind.slug
        self._metrics.problem_told(problem.kind.slug)
        return Reply(
            status=int(problem.kind.status),
            media_type=_MEDIA_TYPE,
            body=write_problem(problem),
            headers=tuple(
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in headers.items()
            ),
        )


def deadline_miss_cause(error: ServiceError, *, has_deadline: bool) -> str | None:
    """Return why a deadline is not kept because of an error; None where it has nothing to do."""
    for kind, cause in _MISS_CAUSES:
        if isinstance(error, kind):
            return cause
    return "overloaded" if has_deadline and isinstance(error, Overloaded) else None
