"""A window of a batch as a cohort: the budget policy decides, a deadline may end it."""

from collections.abc import Collection, Mapping

from model_store.policies.base import Step, WindowPolicy
from service.engine.exit_policy import CohortPolicy
from service.engine.request import ExitReason
from service.engine.stage_costs import ModelTimes


class WindowCohortPolicy(CohortPolicy):
    """Follows a budget policy until the window's next steps no longer fit its deadline.

    Then everybody stands where he stands. What the budget policy had charged for those steps is
    not run, so less is spent than it says. Mutable; owned by the cohort.

    Args:
        window: The budget policy, not begun.
        times: What stages are expected to take.
        deadline_at: When the window must be answered; None ends nothing.
        margin_s: How long before its deadline it must have its answers.
        num_lanes: On which its images run side by side.
    """

    def __init__(
        self,
        window: WindowPolicy,
        times: ModelTimes,
        *,
        deadline_at: float | None,
        margin_s: float,
        num_lanes: int = 1,
    ) -> None:
        self._window = window
        self._times = times
        self._answer_by = None if deadline_at is None else deadline_at - margin_s
        self._num_lanes = num_lanes
        self._is_late = False

    def start(self, now: float) -> tuple[Step, ...]:
        """Return stage 0 for all images."""
        del now  # each is owed its first exit, however late it is
        return self._window.advance({})

    def advance(
        self, confidences: Mapping[int, float], failed: Collection[int], now: float
    ) -> tuple[Step, ...]:
        """Take in how the steps went; see `CohortPolicy`."""
        steps = self._window.advance(confidences, failed)
        self._is_late = self._answer_by is not None and now + self._steps_s(steps) > self._answer_by
        return () if self._is_late else steps

    def reasons(self) -> Mapping[int, ExitReason]:
        """Return why images stand where they stand, of those whose reason is known."""
        reasons: dict[int, ExitReason] = {}
        for image, standing in enumerate(self._window.exits()):
            if standing.reason is not None:
                reasons[image] = ExitReason(standing.reason.value)
            elif self._is_late:
                reasons[image] = ExitReason.DEADLINE
        return reasons

    def _steps_s(self, steps: Collection[Step]) -> float:
        return sum(self._step_s(step) for step in steps)

    def _step_s(self, step: Step) -> float:
        """One step, its images shared among the lanes and run in batches of the best size."""
        num_images = -(-len(step.images) // self._num_lanes)
        size = min(num_images, self._times.best_batch(step.stage_index))
        num_full, rest = divmod(num_images, size)
        full_s = self._batch_s(step, size)
        return num_full * full_s + (self._batch_s(step, rest) if rest else 0.0)

    def _batch_s(self, step: Step, size: int) -> float:
        num_classified = size if step.classify else 0
        return self._times.stage_s(step.stage_index, size, num_classified=num_classified)
