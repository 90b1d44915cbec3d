"""Images that are decided together, from admission until nothing of them runs any more."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.policies.base import Step
from service.backends.base import FeatureHandle, FeatureRows, StageKey
from service.engine.admission import Charge
from service.engine.exit_policy import CohortPolicy
from service.engine.observer import Observer, WasteCause
from service.engine.request import ExitRecord, ImageOutcome, ServedModel
from service.engine.scheduler import QueuedMember
from service.engine.slot import Ending, ImageSlot
from service.engine.stage_costs import ModelTimes


@dataclass(frozen=True, slots=True)
class CohortRequest:
    """What was asked for a cohort."""

    model: ServedModel
    policy: CohortPolicy  # the lane's from the moment the cohort is in the inbox
    arrived_at: float
    due_at: float  # for ordering alone
    answer_by: float | None  # the deadline less its margin
    mandatory_exit: int  # the first that may answer


@dataclass(frozen=True, slots=True)
class Reports:
    """How the last steps of a cohort went, as its policy asks."""

    confidences: Mapping[int, float]
    failed: Collection[int]


class InFlightCohort:
    """A cohort that was admitted. Mutable.

    `slots` and `is_closed` are guarded by the lock of `InFlight`, so that the deadline timer can
    settle the cohort while the lane computes. All else is the lane's once it is in the inbox.

    Args:
        cohort_id: Unique within the engine.
        request: What was asked.
        inputs: Normalised pixels, shape ``(M, 3, H, W)``.
        charge: What admission charged for it.
        owns_charge: Whether the charge ends with the cohort; not so where others share it.
    """

    def __init__(
        self,
        cohort_id: int,
        request: CohortRequest,
        inputs: NDArray[np.float32],
        *,
        charge: Charge,
        owns_charge: bool,
    ) -> None:
        self.cohort_id = cohort_id
        self.request = request
        self.charge = charge
        self.owns_charge = owns_charge
        self.inputs: NDArray[np.float32] | None = inputs
        last_exit = request.model.costs.num_exits - 1
        self.slots = tuple(
            ImageSlot(mandatory_exit=request.mandatory_exit, last_exit=last_exit) for _ in inputs
        )
        self.is_closed = False
        self.num_waiting = 0  # images of the present steps that have not come back
        self._features: list[FeatureRows | None] = [None] * len(inputs)
        self._confidences: dict[int, float] = {}
        self._failed: set[int] = set()

    def take_in(self, handle: FeatureHandle) -> None:
        """Replace the pixels by what the backend made of them."""
        self.inputs = None
        self._features = [FeatureRows(handle, (row,)) for row in range(handle.num_rows)]

    def release(self) -> None:
        """Let go of all features, so that the backend can free them."""
        self.inputs = None
        self._features = []

    def features(self, position: int) -> FeatureRows:
        """Return the one row that an image's next stage reads.

        Raises:
            ValueError: Its last stage was the model's last, or failed.
        """
        features = self._features[position]
        if features is None:
            raise ValueError(f"image {position} of cohort {self.cohort_id} has nothing to go on")
        return features

    def queue(self, steps: Sequence[Step], times: ModelTimes) -> list[QueuedMember]:
        """Return the images that wait for the next steps, as the scheduler knows them.

        Features of images that no step names are kept: a later step may.
        """
        self.num_waiting = sum(len(step.images) for step in steps)
        return [member for step in steps for member in self._members(step, times)]

    def report(
        self, position: int, features: FeatureRows | None, record: ExitRecord | None
    ) -> None:
        """Note how the stage of one image went well."""
        self.num_waiting -= 1
        self._features[position] = features
        if record is not None:
            self._confidences[position] = record.confidence

    def report_failed(self, position: int) -> None:
        """Note that the stage of one image failed."""
        self.num_waiting -= 1
        self._features[position] = None
        self._failed.add(position)

    def take_reports(self) -> Reports:
        """Return how the last steps went, and forget it."""
        reports = Reports(self._confidences, self._failed)
        self._confidences, self._failed = {}, set()
        return reports

    def _members(self, step: Step, times: ModelTimes) -> list[QueuedMember]:
        stage = StageKey(self.request.model.key, step.stage_index)
        finish_by = self._finish_by(step.stage_index, times)
        return [
            QueuedMember(
                cohort_id=self.cohort_id,
                position=position,
                stage=stage,
                classify=step.classify,
                due_at=self.request.due_at,
                finish_by=finish_by,
                has_answer=self.slots[position].has_answer,
                source=id(self.features(position).handle),
            )
            for position in step.images
        ]

    def _finish_by(self, stage_index: int, times: ModelTimes) -> float | None:
        if self.request.answer_by is None:
            return None
        return self.request.answer_by - times.straight_s(
            stage_index + 1, self.request.mandatory_exit
        )


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a cohort's caller is told; there is one for every admitted cohort, and no second."""

    cohort: InFlightCohort
    ending: Ending
    outcomes: tuple[ImageOutcome, ...]

    def report_to(self, observer: Observer) -> None:
        """Tell how the cohort ended, and what of its work is in no answer."""
        cohort = self.cohort
        if self.ending is Ending.LEFT:
            observer.abandoned(cohort.request.model.key, len(cohort.slots))
        else:
            observer.settled(cohort.request.model.key, self.outcomes)
        wasted: Counter[WasteCause] = Counter()
        for slot in cohort.slots:
            wasted[slot.waste_cause(self.ending)] += slot.wasted_macs(self.ending)
        for cause, macs in wasted.items():
            if macs:
                observer.wasted(macs, cause)
