"""Who leaves at an exit and who goes on: what the engine asks of every policy, and one request's.

Pure and synchronous: no clock, no images, no features, no logits; the present is an argument. A
lone request has no policy object: what its limits come to is worked out once, when it is admitted.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from model_store.costs import ExitCosts
from model_store.policies.base import Step
from service.engine.request import ExitLimits, ExitReason

_MAX_PLANS: Final = 1024  # budgets and confidences are any numbers; what is remembered is bounded


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


@dataclass(frozen=True, slots=True)
class LonePlan:
    """What the limits of a single request come to on one network.

    Attributes:
        classify: By stage, whether its classifier runs; None: where the scheduler finds that its
            answer may be of use.
        min_exit: The first exit that may answer.
        last_exit: The deepest it may go to.
        end_reason: Why it goes no deeper than that.
        min_confidence: At which it may leave; None: never for that.
        has_deadline: Whether it has one.
    """

    classify: tuple[bool | None, ...]
    min_exit: int
    last_exit: int
    end_reason: ExitReason
    min_confidence: float | None
    has_deadline: bool

    def reason_to_leave(self, exit_index: int, confidence: float | None) -> ExitReason | None:
        """Return why a request stops behind a stage, or None where it goes on.

        Args:
            exit_index: Of the stage that ran.
            confidence: Calibrated; None where its classifier did not run.
        """
        if exit_index < self.min_exit:
            return None
        is_last = exit_index == self.last_exit
        if is_last and self.end_reason is ExitReason.LAST_EXIT:
            return ExitReason.LAST_EXIT
        wanted = self.min_confidence
        if wanted is not None and confidence is not None and confidence >= wanted:
            return ExitReason.CONFIDENT
        return self.end_reason if is_last else None


def plan_lone(limits: ExitLimits, costs: ExitCosts) -> LonePlan:
    """Work out what the limits of a single request come to.

    Without deadline, confidence or a wish for every exit it runs straight to the deepest exit
    allowed. With a deadline the classifier of `min_exit` runs, so that there is an answer early,
    and the deepest exit's; those between where the scheduler thinks they pay.

    Raises:
        ValueError: The budget does not pay exit `min_exit`; see `affordable_exit`.
    """
    last_exit = affordable_exit(limits, costs)
    if last_exit is None:
        raise ValueError(f"{limits.budget_macs} MACs do not pay exit {limits.min_exit}")
    if last_exit == costs.num_exits - 1:
        end_reason = ExitReason.LAST_EXIT
    elif last_exit == limits.max_exit:
        end_reason = ExitReason.MAX_EXIT
    else:
        end_reason = ExitReason.BUDGET
    return LonePlan(
        classify=tuple(_classifies(limits, stage, last_exit) for stage in range(last_exit + 1)),
        min_exit=limits.min_exit,
        last_exit=last_exit,
        end_reason=end_reason,
        min_confidence=limits.min_confidence,
        has_deadline=limits.deadline_at is not None,
    )


class PlanCache:
    """Remembers what limits come to; most requests ask for the same. Mutable.

    Args:
        costs: Of the one network that it is about.
    """

    def __init__(self, costs: ExitCosts) -> None:
        self._costs = costs
        self._plans: dict[tuple[object, ...], LonePlan] = {}

    def plan(self, limits: ExitLimits) -> LonePlan:
        """Return what limits come to; raises what `plan_lone` does."""
        key = (
            limits.deadline_at is None,
            limits.budget_macs,
            limits.min_confidence,
            limits.min_exit,
            limits.max_exit,
            limits.every_classifier,
        )
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[key] = plan_lone(limits, self._costs)
        return plan


def _classifies(limits: ExitLimits, stage_index: int, last_exit: int) -> bool | None:
    if stage_index == last_exit or limits.every_classifier:
        return True
    if stage_index < limits.min_exit:
        return False
    if limits.min_confidence is not None:
        return True
    if limits.deadline_at is None:
        return False
    return True if stage_index == limits.min_exit else None
