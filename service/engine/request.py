"""The nouns that cross into the engine and back: what is asked of it, and what a caller gets."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.costs import ExitCosts
from model_store.gains import GainTable
from service.backends.base import ModelKey
from service.errors import ServiceError


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


# Named tuples where elsewhere there would be dataclasses: a few of each are made for every request,
# and tuples are made in C.


class ExitRecord(NamedTuple):
    """What one classifier said of one image."""

    exit_index: int
    logits: NDArray[np.float32]  # shape (classes,), finite, uncalibrated
    confidence: float  # calibrated by the temperature of this exit


class Answer(NamedTuple):
    """What one image gets, and every classifier that looked at it on the way."""

    record: ExitRecord
    reason: ExitReason
    passed: tuple[ExitRecord, ...]  # by exit, rising; the answer is the last


class ImageOutcome(NamedTuple):
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
    gains: GainTable | None = None  # what deeper exits should bring, where that is known

    @property
    def gain_table(self) -> GainTable:
        """What deeper exits should bring; where nothing is known, each is right a little more."""
        if self.gains is not None:
            return self.gains
        is_right = np.tri(self.costs.num_exits, dtype=np.bool_).T  # exit k: k + 1 of them
        return GainTable.from_answers(np.full(is_right.shape, 0.5), is_right)


class ExitLimits(NamedTuple):
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


class Terms(NamedTuple):
    """What admission must know of a cohort, or of several that run one after another."""

    model: ModelKey
    num_images: int  # of all of them
    due_at: float  # of work without a deadline, when it counts as overdue
    deadline_at: float | None
    mandatory_exit: int = 0  # the first that may answer
    num_at_once: int | None = None  # images in flight at once; None: all of them
    arrived_at: float | None = None  # from when the deadline runs; None: now
    ready_at: float | None = None  # when its pixels will be there; None: now


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much may be in flight, and how the lanes' time is shared."""

    max_in_flight: int = 1024  # images
    max_feature_bytes: int = 1 << 30
    background_share: float = 0.1  # of the lanes' time, for overdue work without a deadline

    @property
    def max_background(self) -> int:
        """Images without a deadline that may be in flight: a quarter is kept for the others."""
        return self.max_in_flight - self.max_in_flight // 4

    def max_cohort(self, border_bytes: int) -> int:
        """Return how many images may be in flight together, also without a deadline.

        Args:
            border_bytes: Most that one of them holds between stages.
        """
        most = self.max_background
        return min(most, self.max_feature_bytes // border_bytes) if border_bytes else most
