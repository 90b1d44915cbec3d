"""One image in flight, as scheduler and engine hand it to and fro: no pixels, features, logits."""

import math
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from service.backends.base import StageKey


class Kind(IntEnum):
    """What is owed to a waiting image; lower is owed more."""

    MANDATORY = 0  # it has a deadline and no answer yet
    OPTIONAL = 1  # it has a deadline and an answer, which could be better
    BACKGROUND = 2  # it has no deadline


class Outset(NamedTuple):
    """How a member begins; the same for all of a cohort."""

    kind: Kind
    classify: bool | None  # whether its stage's classifier runs; None: the scheduler decides
    due_at: float  # who comes first among equals: when its answer must be there, or should be
    last_exit: int  # the deepest it may go to
    mandatory_exit: int = 0  # that of its first answer, at which it ceases to be mandatory


class Place(Protocol):
    """Where a member waits."""

    def forget(self, member: "Member") -> None:
        """Let it wait no longer."""
        ...


class Member:
    """One image on its way, from its first stage to its last.

    Made once and changed from stage to stage, because thousands a second pass through here.
    Mutable; owned by the engine's core, except `place` and `ticket`, which are the scheduler's, and
    only touched under the engine's lock. While it waits nothing the scheduler reads may be changed.
    """

    __slots__ = (
        "answer_by",
        "answered_exit",
        "classify",
        "cohort",
        "confidence",
        "deadline_at",
        "due_at",
        "is_gone",
        "kind",
        "last_exit",
        "mandatory_exit",
        "place",
        "position",
        "source",
        "stage",
        "ticket",
    )

    cohort: Any  # the engine's own; to the scheduler an opaque object

    def __init__(
        self,
        cohort: object,
        position: int,
        stage: StageKey,
        outset: Outset,
    ) -> None:
        """Begin as one without deadline, answer or features; what differs is set before it waits.

        Args:
            cohort: With whom it is decided; opaque to the scheduler.
            position: Which image of the cohort.
            stage: What it waits for.
            outset: How it begins.
        """
        self.cohort = cohort
        self.position = position
        self.stage = stage
        self.kind, self.classify, self.due_at, self.last_exit, self.mandatory_exit = outset
        self.answer_by = math.inf  # the deadline less its margin
        self.deadline_at = math.inf
        self.answered_exit = -1  # -1: it has no answer
        self.confidence = math.nan  # of that answer, calibrated
        self.source = 0  # identity of the feature handle
        self.is_gone = False  # its cohort was settled; it never waits again
        self.place: Place | None = None
        self.ticket = 0  # tells an entry of a queue from a stale one; 0 where it waits nowhere
