"""What the routes call; `service.app` hands in the real ones, tests small fakes."""

from dataclasses import dataclass
from typing import Protocol

from service.commands import (
    BatchCommand,
    BatchDone,
    Classified,
    ClassifyCommand,
    ModelInfo,
    ModelVersions,
    PlanCommand,
    PlanDone,
)


class ClassifyRoute(Protocol):
    """Classifies one image; cancelled when its client hangs up."""

    async def classify(self, command: ClassifyCommand) -> Classified:
        """Return the answer.

        Raises:
            ServiceError: There is none.
        """
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
