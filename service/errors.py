"""Everything the service refuses or fails to do.

ServiceError
├── RequestRejected           the caller can act on it
│   ├── BadRequest            malformed multipart, archive or array
│   ├── InvalidParameter      a query parameter that cannot be meant
│   ├── UnsupportedMediaType
│   ├── PayloadTooLarge
│   ├── RequestTimeout        the body came too slowly
│   ├── ImageUndecodable
│   ├── ModelNotFound
│   ├── BudgetTooSmall
│   ├── DeadlineInfeasible    not even an idle server could
│   ├── Overloaded            the present backlog forbids it
│   ├── NotReady
│   └── ShuttingDown
└── InferenceFailed           the caller cannot
    ├── DeadlineMissed        admitted, and no exit by its deadline
    ├── BackendFailed
    ├── ReplicaLost           a stage hangs, and this process gives itself up
    └── EngineStopped

The HTTP status of each is in `service.api.problems`; nothing below the API knows HTTP. Numbers a
caller needs are attributes, given by keyword, so that a unit is read wherever an error is raised.
"""

from collections.abc import Sequence


class ServiceError(Exception):
    """Whatever a caller of the service is told instead of an answer."""


class RequestRejected(ServiceError):
    """The request was refused before any stage ran; changed or repeated it may be answered."""


class BadRequest(RequestRejected):
    """The body is not what its content type promises: multipart, archive or array."""


class InvalidParameter(RequestRejected):
    """A query parameter or form field is unknown, repeated, out of range or contradicts another."""

    def __init__(self, message: str, *, parameter: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.nearest = nearest  # the known name most like an unknown one


class UnsupportedMediaType(RequestRejected):
    """The route does not read bodies of this content type."""

    def __init__(self, media_type: str, *, accepted: Sequence[str]) -> None:
        super().__init__(
            f"content type {media_type!r} is not read here; send {', '.join(accepted)}"
        )
        self.media_type = media_type
        self.accepted = tuple(accepted)


class PayloadTooLarge(RequestRejected):
    """The body, an image of it or their number exceeds a limit; said before it is read or decoded.

    Args:
        what: The thing that is too large, as a noun phrase: ``"the body"``.
        limit: The most that is taken, in `unit`.
        unit: ``"bytes"``, ``"megapixels"`` or ``"images"``.
        actual: How much was sent, where that is known.
    """

    def __init__(self, what: str, *, limit: float, unit: str, actual: float | None = None) -> None:
        sent = "more than the limit of" if actual is None else f"{actual:.12g} {unit}, the limit is"
        super().__init__(f"{what} has {sent} {limit:.12g} {unit}")
        self.what = what
        self.limit = limit
        self.unit = unit
        self.actual = actual


class RequestTimeout(RequestRejected):
    """The body did not arrive within the time allowed for it."""

    def __init__(self, *, limit_s: float) -> None:
        super().__init__(f"the body did not arrive within {limit_s:g} s")
        self.limit_s = limit_s


class ImageUndecodable(RequestRejected):
    """The bytes are no image of a known format, or a broken one."""


class ModelNotFound(RequestRejected):
    """No served model answers to this reference."""

    def __init__(self, reference: str, *, available: Sequence[str]) -> None:
        super().__init__(f"no model {reference!r}; there is {', '.join(available) or 'none'}")
        self.reference = reference
        self.available = tuple(available)  # ``name@version`` of everything served


class BudgetTooSmall(RequestRejected):
    """The budget does not pay the first exit that may answer, for every image."""

    def __init__(self, *, minimum_macs: int) -> None:
        super().__init__(f"the budget is below the least that answers, {minimum_macs} MACs")
        self.minimum_macs = minimum_macs


class DeadlineInfeasible(RequestRejected):
    """Not even an idle server reaches the first exit that may answer by this deadline."""

    def __init__(self, *, minimum_s: float) -> None:
        super().__init__(f"an idle server needs {1000 * minimum_s:.3f} ms for a first answer")
        self.minimum_s = minimum_s


class Overloaded(RequestRejected):
    """The present backlog leaves no room, or no exit in time."""

    def __init__(self, *, retry_after_s: float) -> None:
        super().__init__(f"the backlog leaves no room; try again in {1000 * retry_after_s:.0f} ms")
        self.retry_after_s = retry_after_s


class NotReady(RequestRejected):
    """The server is starting, or lost its engine."""

    def __init__(self, *, retry_after_s: float = 1.0) -> None:
        super().__init__("the server is not ready")
        self.retry_after_s = retry_after_s


class ShuttingDown(RequestRejected):
    """The server finishes what it has and takes nothing new."""

    def __init__(self, *, retry_after_s: float = 1.0) -> None:
        super().__init__("the server is shutting down")
        self.retry_after_s = retry_after_s


class InferenceFailed(ServiceError):
    """The request was admitted and has no answer."""


class DeadlineMissed(InferenceFailed):
    """An admitted request had reached no exit that may answer at its deadline."""

    def __init__(self, *, elapsed_s: float) -> None:
        super().__init__(f"no exit was reached within {1000 * elapsed_s:.3f} ms")
        self.elapsed_s = elapsed_s  # from arrival to the deadline


class BackendFailed(InferenceFailed):
    """A stage raised or gave logits that are not finite, before any exit had answered."""


class ReplicaLost(InferenceFailed):
    """A stage hangs; this process ends and its supervisor starts another."""

    def __init__(self, *, retry_after_s: float = 1.0) -> None:
        super().__init__("a stage of the network hangs; this server is being replaced")
        self.retry_after_s = retry_after_s


class EngineStopped(InferenceFailed):
    """The engine ended, by shutdown or by a defect, with this request unanswered."""

    def __init__(self, message: str = "the engine stopped before it answered") -> None:
        super().__init__(message)
