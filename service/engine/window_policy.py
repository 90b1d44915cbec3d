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
    """

    def __init__(
        self, window: WindowPolicy, times: ModelTimes, *, deadline_at: float | None, margin_s: float
    ) -> None:
        self._window = window
        self._times = times
        self._answer_by = None if deadline_at is None else deadline_at - margin_s
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
        return sum(
            self._times.stage_s(
                step.stage_index,
                len(step.images),
                num_classified=len(step.images) if step.classify else 0,
            )
            for step in steps
        )
