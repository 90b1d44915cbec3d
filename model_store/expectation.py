"""What a plan should bring, by cross-fitting on the hold-out set: no image judges its own rule."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_store.budget import BudgetPlan, Regime
from model_store.costs import ExitCosts
from model_store.counts import cumulative_counts
from model_store.policies.choose import PolicyName
from model_store.thresholds import HoldoutConfidences, first_exits

_NUM_FOLDS: Final = 5


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a batch can expect of a plan."""

    accuracy: float  # share of its images answered rightly, in [0, 1]
    macs: float  # of all its images together


@dataclass(frozen=True, slots=True)
class _Fold:
    """A fifth of the hold-out set, and the other four to fit thresholds on."""

    others: HoldoutConfidences
    confidences: NDArray[np.float64]  # (images, exits)
    correct: NDArray[np.bool_]  # (images, exits)


class CrossFit:
    """The hold-out set of a network, split once for any number of plans.

    Args:
        costs: Prices of the exits.
        confidences: Calibrated, shape ``(images, exits)``.
        correct: Whether each exit is right about each image, same shape.

    Raises:
        ValueError: The tables differ in shape, do not fit the exits, or have fewer rows than folds.
    """

    def __init__(
        self, costs: ExitCosts, confidences: NDArray[np.float64], correct: NDArray[np.bool_]
    ) -> None:
        if confidences.shape != correct.shape or confidences.shape[1] != costs.num_exits:
            raise ValueError(
                f"confidences {confidences.shape} and correctness {correct.shape} "
                f"for {costs.num_exits} exits"
            )
        if len(confidences) < _NUM_FOLDS:
            raise ValueError(f"{len(confidences)} hold-out images do not make {_NUM_FOLDS} folds")
        self._costs = costs
        self._accuracy_by_exit = correct.mean(axis=0)
        # Dealt out, not cut off: a table sorted by class still gives folds that are alike.
        fold_of = np.arange(len(confidences)) % _NUM_FOLDS
        self._folds = tuple(
            _Fold(
                others=HoldoutConfidences(confidences[fold_of != fold]),
                confidences=confidences[fold_of == fold],
                correct=correct[fold_of == fold],
            )
            for fold in range(_NUM_FOLDS)
        )

    def expect(self, plan: BudgetPlan, policy_name: PolicyName) -> Expectation:
        """Return the accuracy and the MACs to be expected of a plan.

        Fresh images leave as the folds do: by the thresholds of the other folds (`geometric`), or
        by rank among their own, in the plan's proportions (`topk`). Thresholds alone may cost a
        little more than the budget; the ledger would not have let them.
        """
        if plan.regime is Regime.UNCONSTRAINED or plan.budget_macs is None:
            return Expectation(float(self._accuracy_by_exit[-1]), float(plan.planned_macs))
        leave = _by_threshold if policy_name is PolicyName.GEOMETRIC else _by_rank
        exits = np.concatenate([leave(fold, plan) for fold in self._folds])
        correct = np.concatenate([fold.correct for fold in self._folds])
        prices = np.array(self._costs.cumulative_macs, dtype=np.float64)
        macs = plan.num_images * float(prices[exits].mean())
        accuracy = float(correct[np.arange(len(exits)), exits].mean())
        return Expectation(accuracy, min(macs, float(plan.budget_macs)))


def _by_threshold(fold: _Fold, plan: BudgetPlan) -> NDArray[np.int64]:
    asked = cumulative_counts(plan.shares, fold.others.num_images)
    return first_exits(fold.confidences, fold.others.thresholds(asked))


def _by_rank(fold: _Fold, plan: BudgetPlan) -> NDArray[np.int64]:
    shares = [count / plan.num_images for count in plan.counts]
    standing = np.arange(len(fold.confidences))
    exits = np.full(len(standing), len(shares) - 1, dtype=np.int64)
    num_left = 0
    for exit_index, left_by in enumerate(cumulative_counts(shares, len(exits))[:-1]):
        order = np.argsort(-fold.confidences[standing, exit_index], kind="stable")
        leaving, staying = np.split(order, [left_by - num_left])
        exits[standing[leaving]] = exit_index
        standing = np.sort(standing[staying])
        num_left = left_by
    return exits
