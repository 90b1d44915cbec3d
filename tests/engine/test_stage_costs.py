import math
import threading
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backends.base import ModelKey, StageKey
from service.engine.stage_costs import StageCosts
from tests.engine.conftest import KEY
from tests.engine.conftest import profiled as profiled_alike

STAGE = StageKey(KEY, 0)
UNPROFILED = StageKey(KEY, 9)

profiled = partial(profiled_alike, max_batch=8, num_stages=3, classifier_s=0.25)


def profiled_per_image(*shares_s: float) -> StageCosts:
    """One stage that takes so long per image at batch sizes 1, 2, 4, …"""
    costs = StageCosts(max_batch=1 << (len(shares_s) - 1))
    for size, share_s in zip(costs.buckets, shares_s, strict=True):
        costs.profile(STAGE, size, trunk_s=size * share_s, classifier_s=0.0)
    return costs


def test_buckets_are_powers_of_two_and_the_largest_batch():
    assert StageCosts(max_batch=1).buckets == (1,)
    assert StageCosts(max_batch=8).buckets == (1, 2, 4, 8)
    assert StageCosts(max_batch=11).buckets == (1, 2, 4, 8, 11)


def test_batch_of_no_images_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        StageCosts(max_batch=0)


def test_what_is_unknown_takes_no_time_and_any_batch():
    costs = StageCosts(max_batch=4)

    assert costs.expected_s(STAGE, 4, 4) == 0.0
    assert costs.p99_s(STAGE, 4) == 0.0
    assert costs.best_batch(STAGE) == 4


def test_sizes_between_buckets_are_interpolated():
    costs = StageCosts(max_batch=8)
    costs.profile(STAGE, 4, trunk_s=4.0, classifier_s=1.0)
    costs.profile(STAGE, 8, trunk_s=6.0, classifier_s=2.0)

    assert costs.expected_s(STAGE, 4, 0) == pytest.approx(4.0)
    assert costs.expected_s(STAGE, 5, 0) == pytest.approx(4.5)
    assert costs.expected_s(STAGE, 6, 8) == pytest.approx(7.0)


@given(order=st.permutations((1, 2, 4, 8, 11)))
def test_buckets_may_be_profiled_in_any_order(order):
    costs = StageCosts(max_batch=11)

    for size in order:
        costs.profile(STAGE, size, trunk_s=float(size), classifier_s=0.0)

    assert [costs.expected_s(STAGE, size, 0) for size in range(1, 12)] == pytest.approx(
        list(range(1, 12))
    )


def test_more_than_the_largest_batch_runs_in_several():
    costs = StageCosts(max_batch=2)
    costs.profile(STAGE, 1, trunk_s=3.0, classifier_s=0.5)
    costs.profile(STAGE, 2, trunk_s=4.0, classifier_s=1.0)

    assert costs.expected_s(STAGE, 5, 5) == pytest.approx(4 + 4 + 3 + 1 + 1 + 0.5)
    assert costs.expected_s(STAGE, 5, 1) == pytest.approx(4 + 4 + 3 + 0.5)


def test_only_buckets_are_profiled():
    with pytest.raises(ValueError, match="not in tuple"):
        StageCosts(max_batch=8).profile(STAGE, 3, trunk_s=1.0, classifier_s=0.0)


@pytest.mark.parametrize(
    ("shares_s", "best"),
    [
        ((1.0,), 1),
        ((1.0, 0.8, 0.7, 0.6), 8),
        ((1.0, 0.8, 0.77, 0.78), 2),
        ((1.0, 0.8, 0.7, 0.75), 2),
        ((1.0, 1.2, 1.3, 1.4), 1),
        ((1.14, 1.0), 1),
        ((1.16, 1.0), 2),
        # One that was measured on a bad moment hides none behind it.
        ((1.0, 1.1, 0.7, 0.69), 4),
    ],
)
def test_best_batch_is_the_smallest_bucket_that_is_nearly_the_quickest_per_image(shares_s, best):
    assert profiled_per_image(*shares_s).best_batch(STAGE) == best


@pytest.mark.parametrize(
    ("share_s", "best"),
    [
        pytest.param(0.0001, 8, id="the engine takes five times as long as an image"),
        pytest.param(0.002, 2, id="a quarter of an image"),
        pytest.param(0.01, 1, id="a twentieth of an image"),
    ],
)
def test_what_a_batch_costs_the_engine_makes_larger_ones_better(share_s, best):
    assert profiled_per_image(*(share_s,) * 4).best_batch(STAGE) == best


def test_best_batch_stays_as_it_was_profiled():
    costs = profiled_per_image(1.0, 0.8, 0.7, 0.6)

    for _ in range(200):
        costs.observe(STAGE, 8, 0, 800.0)

    assert costs.best_batch(STAGE) == 8


def test_first_observation_of_an_unprofiled_stage_is_a_guess_for_every_size():
    costs = StageCosts(max_batch=4)

    costs.observe(STAGE, 2, 2, 1.0)

    assert [costs.expected_s(STAGE, size, size) for size in (1, 2, 4)] == [1.0, 1.0, 2.0]


@given(size=st.integers(1, 8), true_s=st.floats(0.1, 10.0))
def test_estimates_come_close_to_what_stages_really_take(size, true_s):
    costs = profiled(num_stages=1)

    for _ in range(400):
        costs.observe(STAGE, size, size, true_s)

    assert costs.expected_s(STAGE, size, size) == pytest.approx(true_s, rel=0.05)


@pytest.mark.parametrize("factor", [0.5, 1.5, 2.0])
def test_lasting_change_is_followed_within_some_tens_of_batches(factor):
    costs = profiled(num_stages=1)

    for _ in range(40):
        costs.observe(STAGE, 4, 4, 1.25 * factor)

    assert costs.expected_s(STAGE, 4, 4) == pytest.approx(1.25 * factor, rel=0.05)


@pytest.mark.parametrize("elapsed_s", [1e-9, 1000.0])
def test_one_outlier_moves_an_estimate_by_six_hundredths(elapsed_s):
    costs = profiled(num_stages=1, classifier_s=0.0)

    costs.observe(STAGE, 1, 0, elapsed_s)

    assert costs.expected_s(STAGE, 1, 0) == pytest.approx(1.0, rel=0.065)


def test_one_pause_in_fifty_hardly_shows():
    costs, noise = profiled(num_stages=1, classifier_s=0.0), np.random.default_rng(1)

    for _ in range(2000):
        usual_s = noise.normal(1.0, 0.05)
        costs.observe(STAGE, 4, 0, 30.0 if noise.random() < 0.02 else usual_s)

    assert costs.expected_s(STAGE, 4, 0) == pytest.approx(1.0, rel=0.1)


def test_what_slows_everything_is_expected_of_stages_that_have_not_run_since():
    costs = profiled(num_stages=8)

    for _ in range(50):
        for stage_index in range(7):
            costs.observe(StageKey(KEY, stage_index), 4, 4, 2.5)

    # What ran shares the change between its own estimates and the pace that all have in common.
    assert 2.0 < costs.expected_s(StageKey(KEY, 7), 8, 8) < 2.5


def test_one_stage_that_changed_says_little_about_the_others():
    costs = profiled(num_stages=2)

    for _ in range(100):
        costs.observe(STAGE, 4, 4, 2.5)
        costs.observe(StageKey(KEY, 1), 4, 4, 1.25)

    assert costs.expected_s(StageKey(KEY, 1), 4, 4) == pytest.approx(1.25, rel=0.05)
    assert costs.expected_s(StageKey(KEY, 1), 8, 8) == pytest.approx(1.25, rel=0.25)


def test_classifier_learns_nothing_of_its_own_from_batches_it_did_not_look_at():
    costs = profiled(max_batch=1, num_stages=1, classifier_s=1.0)

    costs.observe(STAGE, 1, 0, 2.0)

    classifier_s = costs.expected_s(STAGE, 1, 1) - costs.expected_s(STAGE, 1, 0)
    assert classifier_s == pytest.approx(costs.pace)


def test_what_is_profiled_again_counts_whatever_the_pace():
    costs = profiled(num_stages=1)
    for _ in range(50):
        costs.observe(STAGE, 1, 1, 5.0)

    costs.profile(STAGE, 1, trunk_s=3.0, classifier_s=1.0)

    assert costs.expected_s(STAGE, 1, 1) == pytest.approx(4.0)


def test_p99_of_a_stage_that_has_not_run_is_twice_the_expected():
    assert profiled(num_stages=1).p99_s(STAGE, 4) == pytest.approx(2.5)


def test_p99_is_never_below_the_expected():
    costs = profiled(num_stages=1)

    costs.observe(STAGE, 1, 1, 0.5)

    assert costs.p99_s(STAGE, 1) == pytest.approx(costs.expected_s(STAGE, 1, 1))


def test_p99_follows_the_slow_batches_of_lately_and_not_one_of_them():
    costs = profiled(num_stages=1, classifier_s=0.0)

    for number in range(300):
        costs.observe(STAGE, 1, 0, 3.0 if number % 10 == 0 else 1.0)
    costs.observe(STAGE, 1, 0, 1000.0)

    assert 2.0 < costs.p99_s(STAGE, 1) < 4.0


def test_p99_forgets():
    costs = profiled(num_stages=1, classifier_s=0.0)
    costs.observe(STAGE, 1, 0, 1000.0)

    for _ in range(200):
        costs.observe(STAGE, 1, 0, 1.0)

    assert costs.p99_s(STAGE, 1) < 1.1


def test_lanes_may_learn_at_once():
    costs = profiled(num_stages=1)

    def lane():
        for number in range(500):
            costs.observe(STAGE, 1 + number % 8, number % 2, 2.0)

    lanes = [threading.Thread(target=lane) for _ in range(4)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()

    assert costs.expected_s(STAGE, 4, 0) == pytest.approx(2.0, rel=0.2)


def test_straight_to_an_exit_runs_its_classifier_alone():
    times = profiled().times(KEY)

    assert times.straight_s(0, 2) == pytest.approx(3.25)
    assert times.straight_s(2, 2, 4) == pytest.approx(1.25)
    assert times.straight_s(3, 2) == 0.0


def test_share_of_an_image_is_that_in_a_batch_of_the_best_size():
    times = profiled(trunk_s=0.8, classifier_s=0.08, per_image_s=0.1).times(KEY)

    assert times.best_batch(1) == 8
    assert times.share_s(1, classify=False) == pytest.approx(0.2)
    assert times.share_s(1, classify=True) == pytest.approx(0.21)
    assert times.straight_share_s(0, 2) == pytest.approx(0.61)
    assert times.straight_share_s(2, 2) == pytest.approx(0.21)
    assert times.straight_share_s(2, 1) == 0.0


def test_shares_are_those_of_the_present_moment():
    costs = profiled(classifier_s=0.0)
    times = costs.times(KEY)
    before_s = times.straight_share_s(0, 2)

    for _ in range(100):
        for stage_index in range(3):
            costs.observe(StageKey(KEY, stage_index), 8, 0, 2.0)

    assert times.straight_share_s(0, 2) == pytest.approx(2 * before_s, rel=0.1)


def test_straight_share_is_the_sum_of_its_parts():
    costs = profiled(num_stages=5, per_image_s=0.3)
    times = costs.times(KEY)
    for stage_index in range(5):
        costs.observe(StageKey(KEY, stage_index), 5, 3, 0.5 + stage_index)

    for first in range(5):
        for last in range(first, 5):
            trunks_s = [times.share_s(k, classify=False) for k in range(first, last)]
            parts_s = math.fsum([*trunks_s, times.share_s(last, classify=True)])
            assert times.straight_share_s(first, last) == pytest.approx(parts_s)


def test_stages_that_are_unknown_have_no_share():
    times = profiled(num_stages=2, classifier_s=0.0).times(KEY)

    assert times.share_s(7, classify=True) == 0.0
    assert times.straight_share_s(1, 7) == pytest.approx(times.share_s(1, classify=True))
    assert times.straight_share_s(6, 7) == 0.0
    assert times.best_batch(7) == 8
    assert StageCosts(max_batch=4).times(KEY).straight_share_s(0, 3) == 0.0


def test_times_of_one_model_are_those_of_no_other():
    costs = profiled()

    assert costs.times(KEY) is costs.times(KEY)
    assert costs.times(ModelKey("other", "1")).stage_s(0, num_classified=1) == 0.0
