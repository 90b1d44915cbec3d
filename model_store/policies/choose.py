"""Which policy a plan and a name lead to: the one place that knows them all."""

from enum import Enum

from model_store.budget import BudgetPlan, Regime
from model_store.costs import ExitCosts
from model_store.counts import cumulative_counts
from model_store.policies.base import WindowPolicy
from model_store.policies.full_depth import start_full_depth
from model_store.policies.geometric import start_geometric
from model_store.policies.topk import start_topk
from model_store.thresholds import HoldoutConfidences


class PolicyName(Enum):
    """How a bounded budget is shared out among the images, by the name callers use."""

    GEOMETRIC = "geometric"
    TOPK = "topk"


def start_window(
    policy_name: PolicyName, plan: BudgetPlan, costs: ExitCosts, holdout: HoldoutConfidences
) -> WindowPolicy:
    """Start a window by its own plan.

    An unconstrained plan leaves a policy nothing to decide: all go to the last exit.

    Args:
        policy_name: Asked for by the caller.
        plan: Of the window's images and budget.
        costs: Prices of the exits, those of the plan.
        holdout: Confidences of the same network on its hold-out set.
    """
    if plan.regime is Regime.UNCONSTRAINED or plan.budget_macs is None:
        return start_full_depth(costs, plan.num_images, every_classifier=plan.every_classifier)
    if policy_name is PolicyName.TOPK:
        return start_topk(costs, plan.budget_macs, plan.counts)
    thresholds = thresholds_of(policy_name, plan, holdout)
    return start_geometric(costs, plan.num_images, plan.budget_macs, thresholds)


def thresholds_of(
    policy_name: PolicyName, plan: BudgetPlan, holdout: HoldoutConfidences
) -> tuple[float | None, ...]:
    """Return the confidences from which on images leave; None where nobody does.

    Only `geometric` under a bounded budget has any before the last exit's, which is 0.
    """
    if plan.regime is Regime.UNCONSTRAINED or policy_name is PolicyName.TOPK:
        return (*(None,) * (len(plan.shares) - 1), 0.0)
    return holdout.thresholds(cumulative_counts(plan.shares, holdout.num_images))
