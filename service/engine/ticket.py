"""Who waits for a cohort that is in flight, and the timer of its deadline."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from service.engine.cohort import InFlightCohort
from service.engine.image import Ending
from service.engine.request import ImageOutcome

OutcomeT = TypeVar("OutcomeT")


class Waiter(ABC, Generic[OutcomeT]):
    """Waits for a cohort. Belongs to the event loop.

    Attributes:
        outcome: How it ended; errors are part of that, it never holds an exception.
    """

    __slots__ = ("_cohort", "_end", "outcome", "timer")

    def __init__(
        self,
        outcome: "asyncio.Future[OutcomeT]",
        cohort: InFlightCohort,
        end: Callable[[InFlightCohort, Ending], None],
    ) -> None:
        self.outcome = outcome
        self.timer: asyncio.TimerHandle | None = None
        self._cohort = cohort
        self._end = end

    def tell(self, outcomes: tuple[ImageOutcome, ...]) -> None:
        """Say how it ended; whoever has gone is passed over."""
        self._stop_timer()
        if not self.outcome.done():
            self.outcome.set_result(self._own(outcomes))

    def abandon(self) -> None:
        """Run no further stage for it and free its place; does nothing once it is settled."""
        self._stop_timer()
        self._end(self._cohort, Ending.LEFT)

    @abstractmethod
    def _own(self, outcomes: tuple[ImageOutcome, ...]) -> OutcomeT:
        """Return what of a cohort's outcomes is told."""

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Ticket(Waiter[ImageOutcome]):
    """Waits for one image."""

    __slots__ = ()

    def _own(self, outcomes: tuple[ImageOutcome, ...]) -> ImageOutcome:
        return outcomes[0]


class GroupTicket(Waiter[tuple[ImageOutcome, ...]]):
    """Waits for images that are decided together."""

    __slots__ = ()

    def _own(self, outcomes: tuple[ImageOutcome, ...]) -> tuple[ImageOutcome, ...]:
        return outcomes
