"""What a budget means for a batch: its regime, the ratio q comes from, and the exits' shares.

`plan_budget` reads a budget; it neither sees confidences (`thresholds`, `policies`) nor meters what
runs (`ledger`).
"""

import math
from dataclasses import dataclass
from enum import Enum

from model_store.costs import ExitCosts
from model_store.counts import counts_within_budget
from model_store.ratio import exit_hazards, exit_shares, solve_log_ratio


class Regime(Enum):
    """How far a budget reaches."""

    CONSTRAINED = "constrained"  # below the mean of all exits: the paper's 0 < q <= 1
    GENEROUS = "generous"  # from there up: r >= 1, q <= 0
    UNCONSTRAINED = "unconstrained"  # every image can go straight to the last exit


class BudgetInfeasible(ValueError):
    """The budget does not pay the first exit of every image."""

    def __init__(self, *, minimum_macs: int, budget_macs: int, num_images: int) -> None:
        super().__init__(
            f"{num_images} images need at least {minimum_macs} MACs, the budget is {budget_macs}"
        )
        self.minimum_macs = minimum_macs
        self.budget_macs = budget_macs
        self.num_images = num_images


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """What a budget buys a batch, on the average and in whole images."""

    regime: Regime
    ratio: float | None  # r >= 0; None where unconstrained
    q: float | None  # 1 - r, rounds to 1 near the first exit; None where unconstrained
    shares: tuple[float, ...]  # of the images leaving at each exit
    counts: tuple[int, ...]  # images leaving at each exit, which the budget pays
    num_images: int
    budget_macs: int | None  # None: no budget
    planned_macs: int  # what the counts cost
    every_classifier: bool  # every classifier on the way runs, C_k is charged at full depth too

    @property
    def hazards(self) -> tuple[float, ...]:
        """Share of those that reach each exit that leaves there."""
        if self.ratio is None:
            return self.shares
        return exit_hazards(self.ratio, len(self.shares))


def plan_budget(
    costs: ExitCosts, num_images: int, budget_macs: int | None, *, every_classifier: bool = False
) -> BudgetPlan:
    """Solve eq. (3) for a batch, or say why there is nothing to solve.

    Source: Huang et al. 2018, arXiv 1703.09844 v1, §4, eq. (2) and (3).

    Args:
        costs: Prices of the exits.
        num_images: M, the images that could be decoded.
        budget_macs: B, of all images together; None for no budget.
        every_classifier: The classifiers on the way to the last exit are run too, as with a
            deadline or where each exit's answer is wanted: C_K then stands for D_K.

    Raises:
        BudgetInfeasible: B < M·C_1.
        ValueError: There is no image.
    """
    if num_images <= 0:
        raise ValueError(f"a budget needs images to be spent on, not {num_images}")
    minimum_macs = num_images * costs.cumulative_macs[0]
    if budget_macs is not None and budget_macs < minimum_macs:
        raise BudgetInfeasible(
            minimum_macs=minimum_macs, budget_macs=budget_macs, num_images=num_images
        )
    full_macs = num_images * costs.full_depth_macs(every_classifier=every_classifier)
    if budget_macs is None or budget_macs >= full_macs:
        return BudgetPlan(
            regime=Regime.UNCONSTRAINED,
            ratio=None,
            q=None,
            shares=(*(0.0,) * (costs.num_exits - 1), 1.0),
            counts=(*(0,) * (costs.num_exits - 1), num_images),
            num_images=num_images,
            budget_macs=budget_macs,
            planned_macs=full_macs,
            every_classifier=every_classifier,
        )
    return _plan_bounded(costs, num_images, budget_macs, every_classifier=every_classifier)


def _plan_bounded(
    costs: ExitCosts, num_images: int, budget_macs: int, *, every_classifier: bool
) -> BudgetPlan:
    cumulative = costs.cumulative_macs
    if budget_macs == num_images * cumulative[0]:
        log_ratio = -math.inf
    else:
        log_ratio = solve_log_ratio(cumulative, num_images, budget_macs)
    is_constrained = budget_macs * costs.num_exits < num_images * sum(cumulative)
    shares = exit_shares(log_ratio, costs.num_exits)
    counts = counts_within_budget(costs, shares, num_images, budget_macs)
    return BudgetPlan(
        regime=Regime.CONSTRAINED if is_constrained else Regime.GENEROUS,
        ratio=math.exp(log_ratio),
        q=-math.expm1(log_ratio),
        shares=shares,
        counts=counts,
        num_images=num_images,
        budget_macs=budget_macs,
        planned_macs=sum(n * macs for n, macs in zip(counts, cumulative, strict=True)),
        every_classifier=every_classifier,
    )
