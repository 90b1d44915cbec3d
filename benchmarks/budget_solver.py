"""How long it takes to read a budget: q alone, and q with a threshold for every exit.

Run it as ``python -m benchmarks.budget_solver``.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

import numpy as np

from model_store.budget import plan_budget
from model_store.costs import ExitCosts
from model_store.counts import cumulative_counts
from model_store.ratio import solve_log_ratio
from model_store.thresholds import HoldoutConfidences

# An 11-exit MSDNet for 32 × 32 pixels, evaluated lazily.
_CUMULATIVE_MACS: Final = (
    *(13_240_000, 23_230_000, 35_130_000, 50_530_000, 60_450_000, 72_130_000),
    *(85_590_000, 99_390_000, 109_440_000, 120_970_000, 133_970_000),
)
_NUM_HOLDOUT: Final = 5000
_NUM_IMAGES: Final = 256
_NUM_BUDGETS: Final = 400
_MICROSECONDS: Final = 1e6


def main() -> int:
    """Print the median and the worst time over budgets from the first exit to the last."""
    costs = ExitCosts.from_cumulative(_CUMULATIVE_MACS)
    holdout = _holdout(costs.num_exits)
    budgets = [
        int(budget)
        for budget in np.linspace(
            _NUM_IMAGES * _CUMULATIVE_MACS[0] + 1,
            _NUM_IMAGES * _CUMULATIVE_MACS[-1] - 1,
            _NUM_BUDGETS,
        )
    ]

    def solve(budget_macs: int) -> None:
        solve_log_ratio(_CUMULATIVE_MACS, _NUM_IMAGES, budget_macs)

    def plan(budget_macs: int) -> None:
        plan_budget(costs, _NUM_IMAGES, budget_macs)

    def plan_and_fit(budget_macs: int) -> None:
        shares = plan_budget(costs, _NUM_IMAGES, budget_macs).shares
        holdout.thresholds(cumulative_counts(shares, holdout.num_images))

    _report("q alone", solve, budgets)
    _report("whole plan, with counts", plan, budgets)
    _report(f"plan and thresholds, n = {_NUM_HOLDOUT}", plan_and_fit, budgets)
    return 0


def _holdout(num_exits: int) -> HoldoutConfidences:
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=(_NUM_HOLDOUT, 1))
    logits = difficulty + generator.normal(scale=0.5, size=(_NUM_HOLDOUT, num_exits))
    return HoldoutConfidences(1 / (1 + np.exp(-logits - np.linspace(0, 2, num_exits))))


def _report(what: str, run: Callable[[int], None], budgets: Sequence[int]) -> None:
    elapsed_us = [_elapsed_us(run, budget) for budget in budgets]
    median, worst = statistics.median(elapsed_us), max(elapsed_us)
    sys.stdout.write(f"{what}: median {median:.1f} µs, worst {worst:.1f} µs\n")


def _elapsed_us(run: Callable[[int], None], budget_macs: int) -> float:
    started_at = perf_counter()
    run(budget_macs)
    return (perf_counter() - started_at) * _MICROSECONDS


if __name__ == "__main__":
    sys.exit(main())
