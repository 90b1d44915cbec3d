"""What services ask of an engine, wherever it runs: `Engine` is one, `RemoteEngine` another."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_store.policies.choose import PolicyName
from model_store.windows import BatchWindow
from service.backends.base import ModelKey
from service.engine.request import ExitLimits, ImageOutcome, Terms
from service.engine.reservation import Reservation
from service.engine.stage_costs import ModelTimes, StageCosts


@dataclass(frozen=True, slots=True)
class WindowRun:
    """A window of a batch that is to run, and by when."""

    window: BatchWindow  # whose policy has not begun
    policy_name: PolicyName
    arrived_at: float  # the request
    due_at: float  # the deadline, or the soft one of images without
    deadline_at: float | None  # when the answers must be there
    share_ends_at: float | None  # when no more than its share of a batch's time is left
    margin_s: float  # how long before that it must have its answers


class Handed(Protocol):
    """One image that was handed over. Belongs to the event loop."""

    @property
    def outcome(self) -> "asyncio.Future[ImageOutcome]":
        """How it ended; errors are part of that, it never holds an exception."""
        ...

    def abandon(self) -> None:
        """Run no further stage for it and free its place; does nothing once it is settled."""
        ...


class Margin(Protocol):
    """How long before its deadline an answer must leave; see `AnswerMargin`."""

    def margin_s(self, deadline_s: float) -> float:
        """Return how long before a deadline its answer must be ready."""
        ...

    def observe(self, late_s: float) -> None:
        """Learn from an answer that left."""
        ...


class Prospects(Protocol):
    """How full an engine is, and how long things take there."""

    @property
    def stage_costs(self) -> StageCosts:
        """What stages take."""
        ...

    @property
    def num_lanes(self) -> int:
        """Batches that run side by side."""
        ...

    @property
    def num_in_flight(self) -> int:
        """Images admitted and not yet settled."""
        ...

    def times(self, model: ModelKey) -> ModelTimes:
        """Return what the stages of a model are expected to take."""
        ...

    def expected_exit_s(self, model: ModelKey, exit_index: int, batch_size: int) -> float:
        """Return the seconds straight to an exit, no earlier classifier on the way."""
        ...

    def retry_after_s(self) -> float:
        """Return when the present backlog should be gone."""
        ...

    def backlog_s(self) -> float:
        """Return the seconds until a lane is free for who is due after all with a deadline."""
        ...

    def max_cohort(self, model: ModelKey) -> int:
        """Return how many images of a model may be in flight together, also without a deadline."""
        ...


class EngineDoor(Prospects, Protocol):
    """Admits images and runs them. Called on the event loop."""

    @property
    def is_alive(self) -> bool:
        """Whether anything is run."""
        ...

    @property
    def margin(self) -> Margin:
        """How long before its deadline an answer must leave."""
        ...

    def check(self, terms: Terms) -> None:
        """Ask admission without charging anything, as before a body is read.

        Raises:
            DeadlineInfeasible: Not even an idle server could.
            Overloaded: The present backlog forbids it.
            EngineStopped: Nobody would run it; `ReplicaLost` where a stage hangs.
            NotReady: There is no engine process at present.
            ValueError: More at once than there may be; see `max_cohort`.
        """
        ...

    def reserve(self, terms: Terms) -> Reservation:
        """Admit what comes later, or in parts that run one after another; raises as `check`."""
        ...

    def submit(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        limits: ExitLimits,
        *,
        arrived_at: float,
        due_at: float,
        reservation: Reservation | None = None,
    ) -> Handed:
        """Admit one image and hand it over, in one synchronous step.

        An engine in another process tests once more; what it refuses is an error in the outcome.

        Args:
            model: Which.
            inputs: Normalised pixels, shape ``(1, 3, H, W)``; not written to later.
            limits: Which exits may answer, and what may stop it on the way.
            arrived_at: When the request came; its deadline runs from then.
            due_at: The deadline, or the soft one of a request without; for ordering alone.
            reservation: Under which this was admitted on its headers. It is judged anew, and the
                ticket's from here on; where it is refused it is released.

        Raises:
            DeadlineInfeasible: Not even an idle server could.
            Overloaded: The present backlog forbids it.
            EngineStopped: Nobody would run it; `ReplicaLost` where a stage hangs.
            NotReady: There is no engine process at present.
            ValueError: The budget does not pay exit `min_exit`; see `affordable_exit`.
        """
        ...

    async def run_window(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        run: WindowRun,
        reservation: Reservation,
    ) -> tuple[ImageOutcome, ...]:
        """Run images that are decided together and return how each of them ended, in order.

        Cancelled, it runs no further stage.

        Args:
            model: Which.
            inputs: Normalised pixels, shape ``(M, 3, H, W)``; not written to later.
            run: Who goes on, and by when; afterwards its policy has charged what was begun.
            reservation: Under which they were admitted; it stays the caller's.

        Raises:
            ServiceError: None of them ran.
        """
        ...
