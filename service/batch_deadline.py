"""How many MACs can be executed by a deadline: a batch's deadline enters as a smaller budget."""

from itertools import accumulate

from model_store.budget import plan_budget
from model_store.costs import ExitCosts
from service.engine.stage_costs import ModelTimes

# Stages are predicted for a machine with nothing else to do, and sums of predictions err together.
_USABLE_SHARE = 0.9


def affordable_macs(
    costs: ExitCosts, times: ModelTimes, *, num_images: int, available_s: float, num_lanes: int = 1
) -> int | None:
    """Return the largest budget whose plan is expected to run within a time, M·C_K at most.

    MACs are not time: early stages take longer for theirs. So it is the plan of a budget that is
    priced in seconds, stage by stage at the best batch size, and the budget that is searched for.

    Args:
        costs: Prices of the exits.
        times: What stages are expected to take.
        num_images: Of the batch.
        available_s: Until the deadline, behind everybody else.
        num_lanes: On which its images run side by side.

    Returns:
        None where not even exit 0 of every image fits.
    """
    seconds = [num_images * times.share_s(k, classify=True) for k in range(costs.num_exits)]
    usable_s = available_s * num_lanes * _USABLE_SHARE
    low, high = num_images * costs.cumulative_macs[0], num_images * costs.cumulative_macs[-1]
    if usable_s < seconds[0]:
        return None
    if usable_s >= sum(seconds):
        return high
    while high - low > num_images:
        middle = (low + high) // 2
        if _planned_s(costs, num_images, middle, seconds) <= usable_s:
            low = middle
        else:
            high = middle
    return low


def _planned_s(costs: ExitCosts, num_images: int, budget_macs: int, seconds: list[float]) -> float:
    plan = plan_budget(costs, num_images, budget_macs, every_classifier=True)
    left_before = (0.0, *accumulate(plan.shares[:-1]))
    return sum((1.0 - left) * stage_s for left, stage_s in zip(left_before, seconds, strict=True))
