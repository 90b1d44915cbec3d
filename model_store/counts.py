"""From shares to whole images: how many leave at each exit, never more than the budget pays.

Floats choose, integers permit: the shares only propose, and whatever they were rounded to is
repaired in integers.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

from model_store.costs import ExitCosts

# A share such as 0.2 of 5000 may come out a hair above 1000 and must not become 1001.
_ROUNDING: Final = 1e-6


def cumulative_counts(shares: Sequence[float], num_images: int) -> tuple[int, ...]:
    """Images that have left up to and including each exit: N_k = ⌈n·(q_1 + … + q_k)⌉.

    Ceilings of running sums rather than the largest remainder: its cost can fall as the budget
    grows, and goes over the budget half the time.

    Args:
        shares: q_k, K numbers that add up to 1.
        num_images: n.

    Returns:
        K counts that do not fall; the last is n.
    """
    reached = [min(num_images, round_up(num_images * total)) for total in accumulate(shares[:-1])]
    return (*reached, num_images)


def counts_within_budget(
    costs: ExitCosts, shares: Sequence[float], num_images: int, budget_macs: int
) -> tuple[int, ...]:
    """Images per exit, from the shares, that use the budget as far as whole images can.

    Args:
        costs: Prices of the exits; C_k counts, for each image passes all exits up to its own.
        shares: q_k, which cost about the budget.
        num_images: M.
        budget_macs: B >= M·C_1.

    Returns:
        K counts n_k with Σ n_k = M and Σ n_k·C_k <= B. What is unused pays for no image's next
        stage.
    """
    left_by = list(cumulative_counts(shares, num_images))
    exact = [num_images * total for total in accumulate(shares)]
    steps = costs.stage_macs[1:]
    spare = budget_macs - _price(costs, left_by, num_images)
    while spare < 0:
        # Only the rounding of the ratio leads here: the least rounded up gives first.
        movable = [k for k in range(len(steps)) if left_by[k + 1] > left_by[k]]
        k = min(movable, key=lambda exit_index: left_by[exit_index] - exact[exit_index])
        left_by[k] += 1
        spare += steps[k]
    while True:
        movable = [
            k
            for k in range(len(steps))
            if steps[k] <= spare and left_by[k] > (left_by[k - 1] if k else 0)
        ]
        if not movable:
            return counts_per_exit(left_by)
        k = max(movable, key=lambda exit_index: left_by[exit_index] - exact[exit_index])
        left_by[k] -= 1
        spare -= steps[k]


def round_up(amount: float) -> int:
    """Least whole number not below an amount that may be a hair above what it should be.

    Args:
        amount: Images, not negative.
    """
    return max(0, math.ceil(amount - _ROUNDING))


def counts_per_exit(cumulative: Sequence[int]) -> tuple[int, ...]:
    """Images leaving at each exit, from those that have left up to it."""
    return tuple(later - earlier for earlier, later in pairwise([0, *cumulative]))


def _price(costs: ExitCosts, left_by: Sequence[int], num_images: int) -> int:
    saved = (left * step for left, step in zip(left_by, costs.stage_macs[1:], strict=False))
    return num_images * costs.cumulative_macs[-1] - sum(saved)
