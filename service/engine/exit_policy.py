"""Who leaves at an exit and who goes on: what the engine asks of every policy, and one request's.

Pure and synchronous: no clock, no images, no features, no logits; the present is an argument. A
policy is owned by its cohort, and called by one lane at a time.
"""

from collections.abc import Collection, Mapping
from typing import Final, Protocol

from model_store.costs import ExitCosts
from model_store.policies.base import Step
from service.engine.request import ExitLimits, ExitReason
from service.engine.stage_costs import ModelTimes

# Predictions are those of an idle machine; on the way a request meets others.
_COMFORT_FACTOR: Final = 2.0


class CohortPolicy(Protocol):
    """Decides for images that are decided together, stage by stage, until none goes on."""

    def start(self, now: float) -> tuple[Step, ...]:
        """Return what runs first: stage 0, for all images."""
        ...

    def advance(
        self, confidences: Mapping[int, float], failed: Collection[int], now: float
    ) -> tuple[Step, ...]:
        """Take in how all of the last steps went and return what runs next.

        Args:
            confidences: Of the images that were classified, by position in the cohort.
            failed: Images whose stage failed; they go nowhere.
            now: The present instant.

        Returns:
            At most one step per stage; empty once nobody goes on.
        """
        ...

    def reasons(self) -> Mapping[int, ExitReason]:
        """Return why images stand where they stand, of those that wait for no further stage.

        Complete once `advance` returned no step.
        """
        ...


def affordable_exit(limits: ExitLimits, costs: ExitCosts) -> int | None:
    """Return the deepest exit that limits and budget allow, the one a request may run to.

    C_k is the price where classifiers on the way may run, otherwise D_k.

    Returns:
        None where the budget does not even pay exit `min_exit`.
    """
    exit_indices = range(limits.min_exit, limits.max_exit + 1)
    if limits.budget_macs is None:
        return exit_indices[-1]
    prices = costs.cumulative_macs if limits.looks_on_the_way else costs.direct_macs
    if prices[limits.min_exit] > limits.budget_macs:
        return None
    # D_k need not rise: a shallow exit with a costly classifier may be dearer than the next one.
    return max(index for index in exit_indices if prices[index] <= limits.budget_macs)


class LoneRequestPolicy:
    """Runs one image as deep as its limits allow, and no classifier whose answer cannot be used.

    Without deadline, confidence or a wish for every exit it runs straight to the deepest exit
    allowed. With a deadline the classifier of `min_exit` runs, so that there is an answer early,
    the deepest exit's, and those on the way while the rest does not fit comfortably. Mutable.

    Args:
        limits: Which exits may answer, and what may stop it.
        costs: Prices of the exits.
        times: What stages are expected to take.
        margin_s: How long before its deadline it must have its answer.

    Raises:
        ValueError: The budget does not pay exit `min_exit`; see `affordable_exit`.
    """

    def __init__(
        self, limits: ExitLimits, costs: ExitCosts, times: ModelTimes, *, margin_s: float
    ) -> None:
        target = affordable_exit(limits, costs)
        if target is None:
            raise ValueError(f"{limits.budget_macs} MACs do not pay exit {limits.min_exit}")
        self._limits = limits
        self._times = times
        self._target = target
        self._last_exit = costs.num_exits - 1
        self._answer_by = None if limits.deadline_at is None else limits.deadline_at - margin_s
        self._stage_index = 0
        self._begun_at = 0.0
        self._expected_s = 0.0  # of all stages begun
        self._reason: ExitReason | None = None

    def start(self, now: float) -> tuple[Step, ...]:
        """Return stage 0."""
        self._begun_at = now
        return (self._begin(0, now),)

    def advance(
        self, confidences: Mapping[int, float], failed: Collection[int], now: float
    ) -> tuple[Step, ...]:
        """Take in how the stage went; see `CohortPolicy`."""
        self._reason = (
            ExitReason.FAILED if failed else self._reason_to_leave(confidences.get(0), now)
        )
        if self._reason is not None:
            return ()
        return (self._begin(self._stage_index + 1, now),)

    def reasons(self) -> Mapping[int, ExitReason]:
        """Return why it left, once it has."""
        return {} if self._reason is None else {0: self._reason}

    def _reason_to_leave(self, confidence: float | None, now: float) -> ExitReason | None:
        if self._stage_index == self._last_exit:
            return ExitReason.LAST_EXIT
        if self._stage_index < self._limits.min_exit:
            return None
        if self._is_confident(confidence):
            return ExitReason.CONFIDENT
        if self._stage_index == self._target:
            stops_by_wish = self._target == self._limits.max_exit
            return ExitReason.MAX_EXIT if stops_by_wish else ExitReason.BUDGET
        return None if self._next_stage_fits(now) else ExitReason.DEADLINE

    def _is_confident(self, confidence: float | None) -> bool:
        wanted = self._limits.min_confidence
        return wanted is not None and confidence is not None and confidence >= wanted

    def _next_stage_fits(self, now: float) -> bool:
        if self._answer_by is None:
            return True
        next_s = self._times.stage_s(self._stage_index + 1, num_classified=1)
        return now + next_s <= self._answer_by

    def _begin(self, stage_index: int, now: float) -> Step:
        classify = self._classifies(stage_index, now)
        self._stage_index = stage_index
        self._expected_s += self._times.stage_s(stage_index, num_classified=int(classify))
        return Step(stage_index, (0,), classify)

    def _classifies(self, stage_index: int, now: float) -> bool:
        if stage_index == self._target or self._limits.every_classifier:
            return True
        if stage_index < self._limits.min_exit:
            return False
        if self._limits.min_confidence is not None:
            return True
        if self._answer_by is None:
            return False
        is_first = stage_index == self._limits.min_exit
        return is_first or not self._is_comfortable(stage_index, now, self._answer_by)

    def _is_comfortable(self, stage_index: int, now: float, answer_by: float) -> bool:
        """Whether the rest fits well, also if it goes as slowly as the way so far."""
        slowdown = (now - self._begun_at) / self._expected_s if self._expected_s > 0.0 else 1.0
        rest_s = self._times.straight_s(stage_index, self._target)
        return now + rest_s * _COMFORT_FACTOR * max(1.0, slowdown) <= answer_by
