"""Images that are decided together, from admission until nothing of them runs any more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.policies.base import Step
from service.backends.base import StageKey
from service.engine.admission import Charge
from service.engine.exit_policy import CohortPolicy, LonePlan, PlanCache
from service.engine.image import Ending, InFlightImage
from service.engine.member import Kind, Outset
from service.engine.request import ExitRecord, ImageOutcome, ServedModel

OnAnswer: TypeAlias = Callable[[int, ExitRecord], None]
"""Told the position of an image and what a classifier said of it; under the engine's lock, in a
lane's thread, before its cohort is settled. So it must be quick, and must not raise."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A served model with its stages' keys, made once, and the plans of single requests."""

    served: ServedModel
    stages: tuple[StageKey, ...]
    plans: PlanCache  # belongs to the event loop

    @classmethod
    def of(cls, served: ServedModel) -> "EngineModel":
        """Name the stages of a model."""
        stages = tuple(StageKey(served.key, k) for k in range(served.costs.num_exits))
        return cls(served, stages, PlanCache(served.costs))


class Told(Protocol):
    """Whoever wants to know how a cohort ended."""

    def tell(self, outcomes: tuple[ImageOutcome, ...]) -> None:
        """Say so, once."""
        ...


class InFlightCohort:
    """A cohort that was admitted. Mutable; guarded by the engine's lock once it has begun.

    A single request has a plan and no policy; a window of a batch the other way round.

    Args:
        model: Of its images.
        inputs: Normalised pixels, shape ``(M, 3, H, W)``.
        charge: What admission charged for it.
        decider: The plan of a single request, or the policy of several images.
        arrived_at: When the request came.
        deadline_at: When the answers must be there; None: at some time.
        answer_by: The same less the margin.
        owns_charge: Whether the charge ends with the cohort; not so where others share it.
    """

    __slots__ = (
        "__weakref__",
        "_confidences",
        "_failed",
        "answer_by",
        "arrived_at",
        "charge",
        "deadline_at",
        "heard",
        "images",
        "inputs",
        "is_closed",
        "model",
        "num_waiting",
        "owns_charge",
        "plan",
        "policy",
        "waiter",
    )

    def __init__(
        self,
        model: EngineModel,
        inputs: NDArray[np.float32],
        decider: LonePlan | CohortPolicy,
        *,
        charge: Charge,
        arrived_at: float,
        deadline_at: float | None,
        answer_by: float | None,
        owns_charge: bool = True,
    ) -> None:
        self.model = model
        self.inputs: NDArray[np.float32] | None = inputs
        self.charge = charge
        self.arrived_at = arrived_at
        self.deadline_at = deadline_at
        self.answer_by = answer_by
        self.owns_charge = owns_charge
        self.plan = decider if isinstance(decider, LonePlan) else None
        self.policy = None if isinstance(decider, LonePlan) else decider
        self.is_closed = False
        self.num_waiting = 0  # images of the present steps that have not come back
        self.waiter: Told | None = None  # who is told how it ended
        self.heard: OnAnswer | None = None  # who is told what classifiers say on the way
        self._confidences: dict[int, float] = {}
        self._failed: set[int] = set()
        outset = self._outset()
        self.images = tuple(self._image(position, outset) for position in range(len(inputs)))

    def _outset(self) -> Outset:
        answer_by, plan = self.answer_by, self.plan
        return Outset(
            kind=Kind.BACKGROUND if answer_by is None else Kind.MANDATORY,
            classify=None if plan is None else plan.classify[0],
            due_at=self.charge.claim.due_at if answer_by is None else answer_by,
            last_exit=len(self.model.stages) - 1 if plan is None else plan.last_exit,
            mandatory_exit=0 if plan is None else plan.min_exit,
        )

    def _image(self, position: int, outset: Outset) -> InFlightImage:
        image = InFlightImage(self, position, self.model.stages[0], outset)
        image.source = id(self)
        answer_by, deadline_at = self.answer_by, self.deadline_at
        if answer_by is not None and deadline_at is not None:
            image.answer_by = answer_by
            image.deadline_at = deadline_at
        return image

    def begin(self, now: float) -> Sequence[InFlightImage]:
        """Return the images that wait for stage 0."""
        return self.images if self.policy is None else self._begin_steps(self.policy.start(now))

    def _begin_steps(self, steps: Sequence[Step]) -> list[InFlightImage]:
        """Return the images that wait for the next steps, told which stage.

        Features of images that no step names are kept: a later step may.
        """
        begun = []
        for step in steps:
            stage = self.model.stages[step.stage_index]
            for position in step.images:
                image = self.images[position]
                image.stage = stage
                image.classify = step.classify
                begun.append(image)
        self.num_waiting = len(begun)
        return begun

    def report(self, position: int, record: ExitRecord | None) -> None:
        """Note how the stage of one image went well."""
        self.num_waiting -= 1
        if record is not None:
            self._confidences[position] = record.confidence

    def report_failed(self, position: int) -> None:
        """Note that the stage of one image failed."""
        self.num_waiting -= 1
        self._failed.add(position)

    def advance(self, now: float) -> list[InFlightImage]:
        """Return the images that wait for what their policy wants next; none where it is over."""
        if self.policy is None:
            return []
        self.inputs = None
        confidences, self._confidences = self._confidences, {}
        failed, self._failed = self._failed, set()
        steps = self.policy.advance(confidences, failed, now)
        for position, reason in self.policy.reasons().items():
            self.images[position].reason = reason
        return self._begin_steps(steps)


class Settlement(NamedTuple):
    """What a cohort's caller is told; there is one for every admitted cohort, and no second."""

    cohort: InFlightCohort
    ending: Ending
    outcomes: tuple[ImageOutcome, ...]
