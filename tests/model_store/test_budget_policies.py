import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from model_store.budget import BudgetInfeasible, plan_budget
from model_store.costs import ExitCosts
from model_store.policies.base import ExitStanding, LeaveReason, Step, WindowPolicy
from model_store.policies.choose import PolicyName, thresholds_of
from model_store.policies.full_depth import start_full_depth
from model_store.policies.geometric import start_geometric
from model_store.policies.topk import start_topk
from model_store.thresholds import HoldoutConfidences

COSTS = ExitCosts.from_cumulative([10, 25, 45])
CLASSIFIED = ExitCosts(trunk_macs=(8, 12, 17), classifier_macs=(2, 3, 3))


def test_an_unconstrained_window_runs_no_classifier_before_the_last():
    policy = start_full_depth(CLASSIFIED, 2, every_classifier=False)

    first = policy.advance({})
    second = policy.advance({})
    third = policy.advance({})
    over = policy.advance({0: 0.4, 1: 0.7})

    assert first == (Step(0, (0, 1), classify=False),)
    assert second == (Step(1, (0, 1), classify=False),)
    assert third == (Step(2, (0, 1), classify=True),)
    assert over == ()
    assert policy.spent_macs == 2 * 40
    assert policy.exits() == (ExitStanding(2, LeaveReason.LAST_EXIT, 40),) * 2


def test_every_exit_answers_on_the_way_where_that_is_wanted():
    policy = start_full_depth(CLASSIFIED, 1, every_classifier=True)
    policy.advance({})

    steps = policy.advance({0: 0.4})

    assert steps == (Step(1, (0,), classify=True),)
    assert policy.exits() == (ExitStanding(0, None, 10 + 15),)


def test_a_window_whose_images_all_failed_is_over():
    policy = start_full_depth(CLASSIFIED, 2, every_classifier=False)
    policy.advance({})

    assert policy.advance({}, failed=(0, 1)) == ()
    assert policy.exits() == (ExitStanding(None, LeaveReason.FAILED, 8),) * 2


def test_a_failed_image_keeps_its_charge_and_its_last_exit():
    policy = start_geometric(COSTS, 2, 90, (None, None, 0.0))
    policy.advance({})
    policy.advance({0: 0.5, 1: 0.5})

    steps = policy.advance({1: 0.5}, failed={0})
    policy.advance({1: 0.5})

    assert steps == (Step(2, (1,), classify=True),)
    assert policy.exits() == (
        ExitStanding(0, LeaveReason.FAILED, 25),
        ExitStanding(2, LeaveReason.LAST_EXIT, 45),
    )


def test_what_failures_leave_unspent_deepens_the_others():
    policy = start_topk(COSTS, 55, (2, 0, 1))
    policy.advance({})

    steps = policy.advance({0: 0.9, 1: 0.8}, failed=[2])

    assert steps == (Step(1, (1,), classify=True),)


def test_counts_that_cost_more_than_the_budget_are_cut_to_it():
    policy = start_topk(COSTS, 45, (0, 0, 3))
    policy.advance({})

    steps = policy.advance({0: 0.9, 1: 0.8, 2: 0.7})

    assert steps == (Step(1, (2,), classify=True),)


def test_the_remainder_deepens_first_where_doubt_per_mac_is_greatest():
    policy = start_geometric(COSTS, 3, 30 + 15, (0.1, 0.1, 0.0))
    policy.advance({})

    steps = policy.advance({0: 0.6, 1: 0.4, 2: 0.5})

    assert steps == (Step(1, (1,), classify=True),)


def test_an_image_that_answers_nan_is_taken_for_one_without_confidence():
    policy = start_geometric(COSTS, 2, 20 + 15, (0.5, 0.5, 0.0))
    policy.advance({})

    steps = policy.advance({0: math.nan, 1: 0.1})

    assert steps == (Step(1, (0,), classify=True),)


@pytest.mark.parametrize(
    ("confidences", "failed"),
    [
        pytest.param({0: 0.5}, (), id="one missing"),
        pytest.param({0: 0.5, 1: 0.5, 2: 0.5}, (), id="one too many"),
        pytest.param({0: 0.5, 1: 0.5}, (1,), id="answered and failed"),
        pytest.param({0: 0.5, 1: 0.5}, (7,), id="a stranger failed"),
    ],
)
def test_reports_that_do_not_fit_the_last_steps_are_refused(
    confidences: dict[int, float], failed: Sequence[int]
):
    policy = start_geometric(COSTS, 2, 60, (0.5, 0.5, 0.0))
    policy.advance({})

    with pytest.raises(ValueError, match="do not agree"):
        policy.advance(confidences, failed)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(lambda: start_geometric(COSTS, 4, 39, (0.5, 0.5, 0.0)), id="geometric"),
        pytest.param(lambda: start_topk(COSTS, 39, (4, 0, 0)), id="topk"),
    ],
)
def test_a_window_does_not_start_below_its_first_exits(
    start: Callable[[], WindowPolicy],
):
    with pytest.raises(BudgetInfeasible):
        start()


def test_only_geometric_under_a_budget_has_thresholds():
    holdout = HoldoutConfidences(np.array([[0.5, 0.6, 0.7], [0.7, 0.8, 0.9]]))
    bounded = plan_budget(COSTS, 4, 100)

    assert thresholds_of(PolicyName.GEOMETRIC, bounded, holdout) == (0.7, 0.0, 0.0)
    assert thresholds_of(PolicyName.TOPK, bounded, holdout) == (None, None, 0.0)
    assert thresholds_of(PolicyName.GEOMETRIC, plan_budget(COSTS, 4, None), holdout) == (
        None,
        None,
        0.0,
    )
