import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.serving.rule_search import RuleSearch, by_bins, by_images
from benchmarks.serving.stopping_rules import ConfidenceBins, Gain, ImageTimes
from benchmarks.serving.value_function import (
    ValueFunction,
    at_one_exit,
    by_confidence,
    by_label,
)

SEARCHES = pytest.mark.parametrize("search", [by_bins, by_images])
TIMES = ImageTimes(trunk_s=(3.0, 2.0, 4.0), classifier_s=(1.0, 1.0, 1.0), arrival_s=0.5)


def make_table(seed: int, *, num_images: int = 60, num_bins: int = 5) -> ConfidenceBins:
    """Images of some difficulty, at three exits of which later ones err less."""
    generator = np.random.default_rng(seed)
    ease = generator.random((num_images, 1)) + 0.2 * np.arange(3)
    confidences = np.clip(ease + generator.normal(scale=0.2, size=(num_images, 3)), 0, 2)
    is_right = generator.random((num_images, 3)) < np.clip(ease, 0.1, 0.98)
    return ConfidenceBins.build(confidences, is_right, num_bins=num_bins)


def test_time_to_an_exit_counts_the_trunks_between_and_its_own_classifier_alone():
    assert TIMES.straight_s(None, 2) == 0.5 + 3 + 2 + 4 + 1
    assert TIMES.straight_s(0, 2) == 2 + 4 + 1


def test_parts_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="1 trunks and 2 classifiers"):
        ImageTimes((1.0,), (1.0, 1.0))


def test_a_negative_time_is_refused():
    with pytest.raises(ValueError, match="negative"):
        ImageTimes((1.0,), (-1.0,))


def test_bins_hold_equally_many_images_and_the_surest_are_in_the_last():
    confidences = np.array([[0.9], [0.1], [0.8], [0.2]])

    table = ConfidenceBins.build(confidences, np.ones((4, 1), dtype=bool), num_bins=2)

    assert table.bins[:, 0].tolist() == [1, 0, 1, 0]


def test_the_curve_is_the_hull_of_the_gains_and_of_doing_nothing():
    curve = ValueFunction.above([Gain(1.0, 0.5), Gain(2.0, 0.6), Gain(4.0, 0.8), Gain(5.0, 0.7)])

    assert curve(np.array([0.0, 0.5, 1.0, 2.5, 4.0, 9.0])) == pytest.approx(
        [0.0, 0.25, 0.5, 0.65, 0.8, 0.8]
    )


@SEARCHES
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_single_exit_is_worth_more_than_the_curve_says(search: RuleSearch, seed: int):
    table = make_table(seed)

    curve = by_confidence(table, TIMES, search)

    for k in range(3):
        alone = at_one_exit(table.is_right, TIMES, k)
        assert (curve(alone.times_s) >= alone.accuracies - 1e-9).all()


@SEARCHES
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_curve_rises_ever_more_slowly_from_the_origin(search: RuleSearch, seed: int):
    curve = by_confidence(make_table(seed), TIMES, search)

    slopes = np.diff(curve.accuracies) / np.diff(curve.times_s)
    assert (curve.times_s[0], curve.accuracies[0]) == (0.0, 0.0)
    assert (slopes > 0).all()
    assert (np.diff(slopes) < 1e-9).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), price_per_s=st.floats(0, 0.2))
def test_what_is_found_by_images_comes_true_on_them(seed: int, price_per_s: float):
    table = make_table(seed)

    rule = by_images(table, TIMES, price_per_s)

    replayed = rule.replay(table, TIMES)
    assert replayed.accuracy == pytest.approx(rule.expected.accuracy)
    assert replayed.time_s == pytest.approx(rule.expected.time_s)


@SEARCHES
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_whoever_knows_the_label_does_no_worse(search: RuleSearch, seed: int):
    table = make_table(seed)
    work_s = np.linspace(0, 15, 40)

    oracle = by_label(table.is_right, TIMES)

    # Replayed alone: what is merely expected of bins may even exceed what the images allow.
    rules = [search(table, TIMES, price) for price in np.geomspace(1e-3, 1, 20)]
    achieved = ValueFunction.above([rule.replay(table, TIMES) for rule in rules])
    assert (oracle(work_s) >= achieved(work_s) - 1e-9).all()


def test_an_image_is_taken_on_where_its_bin_gains_by_it_and_left_where_it_does_not():
    # Unsure at exit 0: wrong there and right at exit 1. Sure: right at both.
    confidences = np.array([[0.1, 0.9], [0.2, 0.9], [0.8, 0.9], [0.9, 0.9]])
    is_right = np.array([[False, True], [False, True], [True, True], [True, True]])
    table = ConfidenceBins.build(confidences, is_right, num_bins=2)
    times = ImageTimes((1.0, 1.0), (0.0, 0.0))

    curve = by_confidence(table, times, by_images)

    # Exit 0 for all takes 1 and is right half the time; half of the images take 1 more.
    assert curve(np.array([1.5])) == pytest.approx([1.0])


@SEARCHES
def test_where_time_is_too_dear_no_image_is_classified(search: RuleSearch):
    rule = search(make_table(0), TIMES, 100.0)

    assert rule.first_exit is None
    assert rule.expected == Gain(0.0, 0.0)


def test_who_knows_the_label_leaves_out_what_no_exit_gets_right():
    is_right = np.array([[True, True], [False, True], [False, False], [True, False]])
    times = ImageTimes((1.0, 1.0), (0.0, 0.0))

    curve = by_label(is_right, times)

    assert curve(np.array([0.5, 1.0, 9.0])) == pytest.approx([0.5, 0.75, 0.75])
