"""What is known of the request being handled, from its first byte to its line in the log."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

_SCOPE_KEY: Final = "anytime"

current_request_id: ContextVar[str | None] = ContextVar("current_request_id", default=None)
"""Of the request this task works for; the log puts it on every line."""


@dataclass(slots=True)
class RequestContext:
    """One request; made and read by `Books`, which own it; handlers set what came of it."""

    arrived_at: float  # monotonic
    request_id: str
    held_up_s: float = 0.0  # from then until the application was called
    outcome: str = "ok"  # else a problem's slug, or "hung-up"
    status: int | None = None  # None until a response was begun


def attach_context(scope: Scope, context: RequestContext) -> None:
    """Make a request's context known to whoever handles it."""
    scope[_SCOPE_KEY] = context


def context_of(scope: Scope) -> RequestContext:
    """Return the context of the request that a scope belongs to."""
    context: RequestContext = scope[_SCOPE_KEY]
    return context
