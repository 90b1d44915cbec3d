"""Budgets written down: what they are to buy, and what they bought."""

from service.api.answers import JsonObject, model_json
from service.api.encoding import encode_json
from service.commands import BudgetOutlook, BudgetReport, PlanDone


def plan_json(done: PlanDone) -> str:
    """Return what a budget would buy as `PlanResponse` describes it."""
    document = {
        "model": model_json(done.model),
        "images": done.images,
        **outlook_json(done.budget),
        "expected_accuracy": done.expected_accuracy,
        "expected_macs": done.expected_macs,
        "minimum_macs": done.minimum_macs,
        "maximum_macs": done.maximum_macs,
    }
    return encode_json(document)


def outlook_json(budget: BudgetOutlook) -> JsonObject:
    """Return what a budget is to buy."""
    requested = budget.requested_macs
    return {
        "policy": "none" if budget.policy is None else budget.policy.value,
        "regime": budget.regime.value,
        "bound_by": budget.bound_by.value,
        "requested_macs": requested,
        "planned_macs": budget.planned_macs,
        "requested_flops": None if requested is None else 2 * requested,
        "planned_flops": 2 * budget.planned_macs,
        "q": budget.q,
        "ratio": budget.ratio,
        "exit_shares": list(budget.exit_shares),
        "thresholds": list(budget.thresholds),
        "windows": budget.windows,
    }


def budget_json(budget: BudgetReport) -> JsonObject:
    """Return what a budget was to buy, and what it bought."""
    return {
        **outlook_json(budget),
        "spent_macs": budget.spent_macs,
        "spent_flops": 2 * budget.spent_macs,
        "exit_counts": list(budget.exit_counts),
    }
