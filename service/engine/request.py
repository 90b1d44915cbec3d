"""The nouns that cross into the engine and back: what is asked of it, and what a caller gets."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_store.costs import ExitCosts
from service.backends.base import ModelKey
from service.errors import ServiceError

_MAX_MARGIN_SHARE: Final = 0.1


class ExitReason(StrEnum):
    """Why an image has its answer from the exit it has it from, as named on the wire."""

    CONFIDENT = "confident"  # as sure as was asked for
    DEADLINE = "deadline"  # going on would have been too late
    BUDGET = "budget"  # the budget pays no deeper exit
    LOAD = "load"  # given up so that others meet their deadlines
    MAX_EXIT = "max_exit"  # the caller wanted none deeper
    RANK = "rank"  # enough others were less confident
    FAILED = "failed"  # the next stage failed
    LAST_EXIT = "last_exit"


@dataclass(frozen=True, slots=True, eq=False)
class ExitRecord:
    """What one classifier said of one image."""

    exit_index: int
    logits: NDArray[np.float32]  # shape (classes,), finite, uncalibrated
    confidence: float  # calibrated by the temperature of this exit


@dataclass(frozen=True, slots=True)
class Answer:
    """What one image gets, and every classifier that looked at it on the way."""

    record: ExitRecord
    reason: ExitReason
    passed: tuple[ExitRecord, ...]  # by exit, rising; the answer is the last


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """How one image ended: exactly one of `answer` and `error` is there."""

    answer: Answer | None
    error: ServiceError | None
    spent_macs: int  # every stage and classifier begun for it
    compute_s: float  # wall time of the stage batches it was in
    compute_share_s: float  # the same, each divided by its images: sums up over a cohort


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the engine must know of a model; its graphs are the backend's."""

    key: ModelKey
    costs: ExitCosts
    temperatures: tuple[float, ...]  # one per exit
    border_bytes: int  # most bytes of features one image ever holds between stages
    input_shape: tuple[int, int, int]  # (3, H, W)


@dataclass(frozen=True, slots=True)
class ExitLimits:
    """Which exits a single request may be answered from, and what may stop it on the way."""

    deadline_at: float | None
    budget_macs: int | None
    min_confidence: float | None
    min_exit: int  # none earlier answers
    max_exit: int  # none later runs; below the number of exits
    every_classifier: bool  # whether each exit up to the answer is to say something

    @property
    def looks_on_the_way(self) -> bool:
        """Whether earlier classifiers may run, so that C_k is the price judged and not D_k."""
        return (
            self.every_classifier or self.deadline_at is not None or self.min_confidence is not None
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """What admission must know of a cohort, or of several that run one after another."""

    model: ModelKey
    num_images: int  # of all of them
    due_at: float  # for ordering alone
    deadline_at: float | None
    mandatory_exit: int = 0  # the first that may answer
    num_at_once: int | None = None  # images in flight at once; None: all of them


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much may be in flight, and how early an answer leaves for its deadline."""

    max_in_flight: int = 1024  # images
    max_feature_bytes: int = 1 << 30
    deadline_margin_s: float = 0.002  # most that is kept for writing the answer

    def margin_s(self, remaining_s: float) -> float:
        """Return how long before its deadline a request has its answer: a tenth of it at most.

        Args:
            remaining_s: Until the deadline.
        """
        return min(self.deadline_margin_s, max(0.0, remaining_s) * _MAX_MARGIN_SHARE)

    def answer_by(self, deadline_at: float | None, now: float) -> float | None:
        """Return when a request must have its answer; None where it has no deadline."""
        return None if deadline_at is None else deadline_at - self.margin_s(deadline_at - now)

    def least_deadline_s(self, work_s: float) -> float:
        """Return the shortest deadline that leaves enough for the work after its margin."""
        return work_s + min(
            self.deadline_margin_s, work_s * _MAX_MARGIN_SHARE / (1 - _MAX_MARGIN_SHARE)
        )
