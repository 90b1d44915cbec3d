import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.budget import BudgetInfeasible, Regime
from model_store.costs import ExitCosts
from model_store.policies.base import LeaveReason
from model_store.policies.choose import PolicyName
from model_store.replay import replay_batch, run_window
from model_store.thresholds import HoldoutConfidences
from model_store.windows import BatchBudget, BatchWindow, interleave

COSTS = ExitCosts(trunk_macs=(8, 12, 17), classifier_macs=(2, 3, 3))
HOLDOUT = HoldoutConfidences(np.random.default_rng(0).random((200, 3)))


def make_batch(
    *,
    num_images: int = 10,
    budget_macs: int | None = 250,
    policy_name: PolicyName = PolicyName.GEOMETRIC,
    window_size: int = 4,
    every_classifier: bool = False,
) -> BatchBudget:
    return BatchBudget(
        COSTS,
        HOLDOUT,
        num_images=num_images,
        budget_macs=budget_macs,
        policy_name=policy_name,
        window_size=window_size,
        every_classifier=every_classifier,
    )


def opened(batch: BatchBudget) -> BatchWindow:
    window = batch.open_window()
    assert window is not None
    return window


@given(
    num_images=st.integers(1, 60),
    window_size=st.integers(1, 70),
    mean_macs=st.floats(10, 46),
    policy_name=st.sampled_from(PolicyName),
    seed=st.integers(0, 2**32 - 1),
)
def test_windows_together_keep_the_budget_and_answer_every_image(
    num_images: int, window_size: int, mean_macs: float, policy_name: PolicyName, seed: int
):
    budget_macs = int(num_images * mean_macs)
    batch = make_batch(
        num_images=num_images,
        budget_macs=budget_macs,
        window_size=window_size,
        policy_name=policy_name,
    )
    confidences = np.random.default_rng(seed).random((num_images, 3))

    replay = replay_batch(batch, confidences)

    assert replay.spent_macs == batch.spent_macs <= budget_macs
    assert replay.spent_macs == sum(standing.spent_macs for standing in replay.standings)
    assert len(replay.exit_indices) == num_images
    assert set(replay.exit_indices.tolist()) <= {0, 1, 2}


@given(
    seed=st.integers(0, 2**32 - 1),
    num_dropped=st.integers(0, 20),
    mean_macs=st.floats(10, 46),
)
def test_images_dropped_between_windows_leave_their_share_to_the_others(
    seed: int, num_dropped: int, mean_macs: float
):
    budget_macs = int(30 * mean_macs)
    batch = make_batch(num_images=30, budget_macs=budget_macs, window_size=7)
    confidences = np.random.default_rng(seed).random((30, 3))
    first = opened(batch)
    pending = sorted(set(range(30)).difference(first.images))
    dropped = random.Random(seed).sample(pending, num_dropped)  # noqa: S311 (a test's dice)

    run_window(first.policy, confidences[list(first.images)])
    for image in dropped:
        batch.drop(image)
    answered, last = set(first.images), first
    while window := batch.open_window():
        run_window(window.policy, confidences[list(window.images)])
        answered.update(window.images)
        last = window

    assert answered == set(range(30)).difference(dropped)
    assert batch.spent_macs <= budget_macs
    left_macs = budget_macs - batch.spent_macs
    for standing in last.policy.exits():
        if standing.reason is not LeaveReason.LAST_EXIT:
            assert standing.exit_index is not None
            assert left_macs < COSTS.stage_macs[standing.exit_index + 1]


def test_the_share_of_dropped_images_makes_the_next_window_richer():
    batch = make_batch(num_images=4, budget_macs=100, window_size=2)
    run_window(opened(batch).policy, np.full((2, 3), 0.5))
    left_macs = 100 - batch.spent_macs

    batch.drop(3)

    window = opened(batch)
    assert window.images == (1,)
    assert window.plan.budget_macs == left_macs


def test_a_window_that_lost_all_its_images_is_passed_over():
    batch = make_batch(num_images=3, budget_macs=None, window_size=1)
    opened(batch)

    batch.drop(1)

    assert opened(batch).images == (2,)
    assert batch.open_window() is None


def test_an_image_whose_window_was_opened_cannot_be_dropped():
    batch = make_batch()
    window = opened(batch)

    with pytest.raises(ValueError, match="no window still to come"):
        batch.drop(window.images[0])


def test_a_batch_without_a_budget_goes_straight_to_the_last_exit():
    replay = replay_batch(make_batch(budget_macs=None), np.full((10, 3), 0.5))

    assert replay.exit_indices.tolist() == [2] * 10
    assert replay.spent_macs == 10 * 40


def test_where_every_exit_answers_full_depth_costs_every_classifier():
    replay = replay_batch(
        make_batch(budget_macs=None, every_classifier=True), np.full((10, 3), 0.5)
    )

    assert replay.spent_macs == 10 * 45


def test_a_budget_for_full_depth_is_unconstrained_in_every_window():
    batch = make_batch(budget_macs=400)
    regimes = []
    while window := batch.open_window():
        run_window(window.policy, np.full((len(window.images), 3), 0.5))
        regimes.append(window.plan.regime)

    assert regimes == [Regime.UNCONSTRAINED] * batch.num_windows
    assert batch.spent_macs == 400


def test_the_report_is_of_the_whole_batch():
    batch = make_batch()

    assert batch.plan.num_images == 10
    assert batch.plan.budget_macs == 250
    assert batch.num_windows == 3


def test_windows_take_turns_so_that_sorted_uploads_look_alike():
    assert [list(images) for images in interleave(7, 3)] == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_window_without_room_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        make_batch(window_size=0)


def test_a_batch_below_its_first_exits_is_refused():
    with pytest.raises(BudgetInfeasible):
        make_batch(budget_macs=99)
