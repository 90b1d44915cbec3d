"""Accuracy under budgets: the test set replayed as one batch, as the server would have run it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_store.costs import ExitCosts
from model_store.policies.choose import PolicyName
from model_store.replay import replay_batch
from model_store.thresholds import HoldoutConfidences
from model_store.windows import BatchBudget


@dataclass(frozen=True, slots=True)
class Sweep:
    """Which budgets are tried."""

    num_budgets: int = 12  # evenly from M·C_1 to M·D_K
    window_size: int = 256  # images decided together; the server's default

    def budgets(self, costs: ExitCosts, num_images: int) -> tuple[int, ...]:
        """Return budgets of a whole batch, in MACs, ascending, each once."""
        least, most = costs.cumulative_macs[0], costs.direct_macs[-1]
        means = np.linspace(least, most, self.num_budgets)
        return tuple(sorted({int(round(mean * num_images)) for mean in means}))


class BudgetResult(BaseModel):
    """One policy under one budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: PolicyName
    budget_macs: int  # of all images together
    spent_macs: int  # never more
    accuracy: float  # in [0, 1]
    exit_counts: tuple[int, ...]  # images answered at each exit


def sweep_budgets(
    sweep: Sweep,
    costs: ExitCosts,
    *,
    holdout: NDArray[np.float64],
    confidences: NDArray[np.float64],
    is_right: NDArray[np.bool_],
) -> tuple[BudgetResult, ...]:
    """Replay a batch under every budget, policy by policy.

    Args:
        sweep: Budgets and window size.
        costs: Prices of the exits.
        holdout: Calibrated confidences that thresholds are fitted on, shape ``(hold-out, exits)``.
        confidences: Calibrated, of the batch, shape ``(images, exits)``.
        is_right: Whether each exit answers each image rightly, shape ``(images, exits)``.
    """
    known = HoldoutConfidences(holdout)
    results = (
        _replay(batch, policy_name, confidences, is_right)
        for policy_name, batch in _batches(sweep, costs, known, len(confidences))
    )
    return tuple(results)


def _batches(
    sweep: Sweep, costs: ExitCosts, holdout: HoldoutConfidences, num_images: int
) -> Iterator[tuple[PolicyName, BatchBudget]]:
    for policy_name in PolicyName:
        for budget_macs in sweep.budgets(costs, num_images):
            yield (
                policy_name,
                BatchBudget(
                    costs,
                    holdout,
                    num_images=num_images,
                    budget_macs=budget_macs,
                    policy_name=policy_name,
                    window_size=sweep.window_size,
                ),
            )


def _replay(
    batch: BatchBudget,
    policy_name: PolicyName,
    confidences: NDArray[np.float64],
    is_right: NDArray[np.bool_],
) -> BudgetResult:
    replay = replay_batch(batch, confidences)
    exits = replay.exit_indices
    budget_macs = batch.plan.budget_macs
    if budget_macs is None:
        raise ValueError("a sweep is over budgets")
    return BudgetResult(
        policy=policy_name,
        budget_macs=budget_macs,
        spent_macs=replay.spent_macs,
        accuracy=float(is_right[np.arange(len(exits)), exits].mean()),
        exit_counts=tuple(np.bincount(exits, minlength=is_right.shape[1]).tolist()),
    )
