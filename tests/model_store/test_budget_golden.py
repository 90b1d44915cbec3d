"""The golden vectors: 60-digit arithmetic, computed apart from the code they judge."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from model_store.budget import BudgetInfeasible, plan_budget
from model_store.costs import ExitCosts
from model_store.counts import counts_per_exit, cumulative_counts
from model_store.policies.base import WindowPolicy
from model_store.policies.choose import PolicyName, start_window
from model_store.policies.geometric import continuation_quota, start_geometric
from model_store.ratio import exit_shares
from model_store.replay import run_window
from model_store.thresholds import HoldoutConfidences, first_exits
from model_store.windows import interleave, window_budget

Case: TypeAlias = dict[str, Any]

GOLDEN: dict[str, Any] = json.loads(
    Path(__file__).with_name("budget-golden.json").read_text("utf-8")
)
TOLERANCES = GOLDEN["tolerances"]


def cases(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case["id"]) for case in GOLDEN[section]]
    )


def nearly(value: float | None, *, rel: float, absolute: float = 0) -> object:
    return None if value is None else pytest.approx(value, rel=rel, abs=absolute)


def feasible(case: Case) -> bool:
    return bool(case["regime"] != "infeasible")


def costs_of(case: Case) -> ExitCosts:
    return ExitCosts.from_cumulative(GOLDEN["costs"][case["costs"]])


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case["id"]) for case in GOLDEN["plans"] if not feasible(case)],
)
def test_a_budget_below_the_first_exits_is_refused_with_the_least_that_would_do(case: Case):
    with pytest.raises(BudgetInfeasible) as refusal:
        plan_budget(costs_of(case), case["num_images"], case["budget_macs"])

    assert refusal.value.minimum_macs == case["minimum_macs"]
    assert refusal.value.budget_macs == case["budget_macs"]
    assert refusal.value.num_images == case["num_images"]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["id"]) for case in GOLDEN["plans"] if feasible(case)]
)
def test_a_plan_agrees_with_exact_arithmetic(case: Case):
    costs = costs_of(case)

    plan = plan_budget(costs, case["num_images"], case["budget_macs"])

    q_tolerance = TOLERANCES["q_absolute_plus_relative"]
    shares_tolerance = TOLERANCES["shares_relative"]
    mean_macs = np.dot(plan.shares, costs.cumulative_macs)
    assert plan.regime.value == case["regime"]
    assert plan.ratio == nearly(case["ratio"], rel=TOLERANCES["ratio_relative"])
    assert plan.q == nearly(case["q"], rel=q_tolerance, absolute=q_tolerance)
    assert plan.shares == pytest.approx(case["shares"], rel=shares_tolerance, abs=0)
    assert plan.hazards == pytest.approx(case["hazards"], rel=shares_tolerance, abs=0)
    assert mean_macs == pytest.approx(case["mean_macs"], rel=TOLERANCES["mean_macs_relative"])
    assert list(cumulative_counts(plan.shares, case["num_images"])) == case["cumulative_counts"]
    assert list(plan.counts) == case["topk_counts"]
    assert plan.planned_macs == case["topk_macs"]


@cases("counts")
def test_shares_become_whole_images_by_ceilings_of_running_sums(case: Case):
    shares = exit_shares(float(np.log(case["ratio"])), case["num_exits"])

    reached = cumulative_counts(shares, case["n"])

    assert shares == pytest.approx(case["shares"], rel=TOLERANCES["shares_relative"])
    assert list(reached) == case["cumulative_counts"]
    assert list(counts_per_exit(reached)) == case["counts"]


@cases("thresholds")
def test_thresholds_let_the_counts_asked_for_leave_as_nearly_as_ties_allow(case: Case):
    confidences = np.array(case["confidences"])

    thresholds = HoldoutConfidences(confidences).thresholds(case["cumulative_counts"])

    exits = first_exits(confidences, thresholds).tolist()
    assert list(thresholds) == case["thresholds"]
    assert exits == case["exits"]
    assert [Counter(exits)[k] for k in range(len(thresholds))] == case["realised_counts"]


@cases("topk")
def test_topk_fills_its_counts_by_rank(case: Case):
    costs = ExitCosts.from_cumulative(case["cumulative_macs"])
    confidences = np.array(case["confidences"])

    plan = plan_budget(costs, len(confidences), case["budget_macs"])
    policy = start_window(PolicyName.TOPK, plan, costs, HoldoutConfidences(confidences))
    run_window(policy, confidences)

    rounded = cumulative_counts(plan.shares, len(confidences))
    assert plan.regime.value == case["regime"]
    assert plan.ratio == nearly(case["ratio"], rel=TOLERANCES["ratio_relative"])
    assert list(rounded) == case["rounded_cumulative_counts"]
    assert list(plan.counts) == case["counts"]
    assert [standing.exit_index for standing in policy.exits()] == case["exits"]
    assert policy.spent_macs == case["spent_macs"] == plan.planned_macs
    assert case["budget_macs"] - policy.spent_macs == case["unused_macs"]


@cases("ledger")
def test_geometric_spends_a_budget_move_by_move_as_written(case: Case):
    costs = ExitCosts.from_cumulative(case["cumulative_macs"])
    num_images, budget_macs = len(case["confidences"]), case["budget_macs"]
    policy = start_geometric(costs, num_images, budget_macs, case["thresholds"])

    moves = play_moves(policy, case["confidences"])

    expected = [move for move in case["steps"] if move.get("went_on") != 0]
    num_first_pass = sum("exit" in move for move in expected)
    first_pass, remainder = moves[1 : 1 + num_first_pass], moves[1 + num_first_pass :]
    assert [(len(images), budget_macs - spent) for images, spent in first_pass] == [
        (move["went_on"], move["left_macs"]) for move in expected if "exit" in move
    ]
    assert [(images, budget_macs - spent) for images, spent in remainder] == [
        (move["upgraded"], move["left_macs"]) for move in expected if "upgraded" in move
    ]
    standings = policy.exits()
    assert [standing.exit_index for standing in standings] == case["exits"]
    assert [standing.reason and standing.reason.value for standing in standings] == case["reasons"]
    assert policy.spent_macs == case["spent_macs"]
    assert budget_macs - policy.spent_macs == case["unused_macs"]


@cases("ledger")
def test_the_quota_at_each_exit_is_eq_3_for_what_is_left(case: Case):
    costs = ExitCosts.from_cumulative(case["cumulative_macs"])
    left_macs = case["budget_macs"] - len(case["confidences"]) * case["cumulative_macs"][0]
    expected = [move["quota"] for move in case["steps"] if "exit" in move]

    quotas = []
    for move in case["steps"]:
        if "exit" in move:
            quotas.append(continuation_quota(costs, move["exit"], move["standing"], left_macs))
        left_macs = move["left_macs"]

    assert quotas == expected


@cases("windows")
def test_windows_share_what_is_left_and_carry_every_remainder(case: Case):
    num_images = sum(case["window_sizes"])
    left_macs, num_remaining = case["budget_macs"], num_images
    sizes = [len(images) for images in interleave(num_images, max(case["window_sizes"]))]

    budgets = []
    for size, spent_macs in zip(sizes, case["window_spent"], strict=True):
        budgets.append(window_budget(left_macs, size, num_remaining))
        left_macs -= spent_macs
        num_remaining -= size

    assert sizes == case["window_sizes"]
    assert budgets == case["window_budgets"]
    assert left_macs == case["unused_macs"]
    assert all(
        budget >= size * case["first_exit_macs"]
        for budget, size in zip(budgets, sizes, strict=True)
    )


def test_cumulative_counts_and_counts_per_exit_undo_each_other():
    assert tuple(accumulate(counts_per_exit((3, 3, 7, 10)))) == (3, 3, 7, 10)


def play_moves(
    policy: WindowPolicy, confidences: Sequence[Sequence[float]]
) -> list[tuple[list[int], int]]:
    """Play to the end; of each move the images that ran, and what was spent by then."""
    moves = []
    steps = policy.advance({})
    while steps:
        moves.append((sorted(i for step in steps for i in step.images), policy.spent_macs))
        steps = policy.advance(
            {i: confidences[i][step.stage_index] for step in steps for i in step.images}
        )
    return moves
