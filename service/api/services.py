"""What the routes call; `service.app` hands in the real ones, tests small fakes."""

import asyncio
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from service.commands import (
    BatchCommand,
    BatchDone,
    Classified,
    ClassifyAnnounced,
    ClassifyCommand,
    ModelInfo,
    ModelVersions,
    PlanCommand,
    PlanDone,
)
from service.engine.request import ImageOutcome
from service.engine.reservation import Reservation

Place: TypeAlias = Reservation | None
"""What was charged for a request before its image was there; None: nothing."""


class BegunClassify(Protocol):
    """One image on its way through the network."""

    @property
    def outcome(self) -> "asyncio.Future[ImageOutcome]":
        """Done when there is something to tell; it never holds an exception."""
        ...

    def finish(self) -> Classified:
        """Return the answer, once `outcome` is done.

        Raises:
            ServiceError: There is none.
        """
        ...

    def abandon(self) -> None:
        """Run no further stage for it: nobody waits any more."""
        ...


class ClassifyRoute(Protocol):
    """Classifies one image; cancelled when its client hangs up."""

    def announce(self, announced: ClassifyAnnounced) -> AbstractContextManager[Place]:
        """Hold a place for a request whose body is not there yet, until the block ends.

        Raises:
            ServiceError: There will be no answer in time, or no room.
        """
        ...

    def begin(self, command: ClassifyCommand) -> BegunClassify | None:
        """Hand an image over that can be decoded at once; None: `classify` has to be asked.

        Raises:
            ServiceError: It is refused.
        """
        ...

    async def classify(self, command: ClassifyCommand, place: Place = None) -> Classified:
        """Return the answer.

        Args:
            command: What is asked.
            place: Where it was announced.

        Raises:
            ServiceError: There is none.
        """
        ...

    def delivered(self, done: Classified) -> None:
        """Hear that the last byte of an answer was handed over."""
        ...


class BatchRoute(Protocol):
    """Classifies many images under one budget; cancelled when its client hangs up."""

    async def classify(self, command: BatchCommand) -> BatchDone:
        """Return the answers.

        Raises:
            ServiceError: There is none at all; an image that fails alone is among the answers.
        """
        ...


class PlanRoute(Protocol):
    """Explains budgets, at once."""

    def plan(self, command: PlanCommand) -> PlanDone:
        """Return what a budget would buy.

        Raises:
            ServiceError: It buys nothing, or there is no such model.
        """
        ...


class ModelsRoute(Protocol):
    """Tells what is served."""

    def versions(self) -> tuple[ModelVersions, ...]:
        """Return every name that is served."""
        ...

    def describe(self, reference: str) -> ModelInfo:
        """Return one model.

        Args:
            reference: ``name`` or ``name@version``.

        Raises:
            ModelNotFound: It is not served.
        """
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the routes call."""

    classify: ClassifyRoute
    batch: BatchRoute
    plan: PlanRoute
    models: ModelsRoute
