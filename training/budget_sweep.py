"""Accuracy under budgets: the test set replayed as one batch, as the server would have run it."""

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_store.costs import ExitCosts
from model_store.policies.choose import PolicyName
from model_store.replay import Replay, replay_batch
from model_store.thresholds import HoldoutConfidences
from model_store.windows import BatchBudget

DEFAULT_BUDGETS: Final = 12
DEFAULT_WINDOW: Final = 256  # the server's


@dataclass(frozen=True, slots=True)
class Sweep:
    """Which budgets are tried."""

    num_budgets: int = DEFAULT_BUDGETS  # evenly from M·C_1 to M·D_K
    window_size: int = DEFAULT_WINDOW  # images decided together

    def budgets(self, costs: ExitCosts, num_images: int) -> tuple[int, ...]:
        """Return budgets of a whole batch, in MACs, ascending, each once."""
        least, most = costs.cumulative_macs[0], costs.direct_macs[-1]
        means = np.linspace(least, most, self.num_budgets)
        return tuple(sorted({round(mean * num_images) for mean in means}))


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
    num_images = len(confidences)
    results = []
    for policy_name, budget_macs in product(PolicyName, sweep.budgets(costs, num_images)):
        batch = BatchBudget(
            costs,
            known,
            num_images=num_images,
            budget_macs=budget_macs,
            policy_name=policy_name,
            window_size=sweep.window_size,
        )
        replay = replay_batch(batch, confidences)
        results.append(_result(policy_name, budget_macs, replay, is_right))
    return tuple(results)


def _result(
    policy_name: PolicyName, budget_macs: int, replay: Replay, is_right: NDArray[np.bool_]
) -> BudgetResult:
    exits = replay.exit_indices
    return BudgetResult(
        policy=policy_name,
        budget_macs=budget_macs,
        spent_macs=replay.spent_macs,
        accuracy=float(is_right[np.arange(len(exits)), exits].mean()),
        exit_counts=tuple(np.bincount(exits, minlength=is_right.shape[1]).tolist()),
    )
