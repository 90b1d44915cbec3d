import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.calibration import Calibration
from model_store.gains import GainTable

# Four unsure images, of which the second exit wins three, and four sure ones, of which it spoils
# one.
CONFIDENCES = np.array([[0.3, 0.9]] * 4 + [[0.95, 0.9]] * 4)
IS_RIGHT = np.array([[0, 1]] * 3 + [[1, 1]] + [[1, 1]] * 3 + [[1, 0]], dtype=np.bool_)


def table(num_bins: int = 2) -> GainTable:
    return GainTable.from_answers(CONFIDENCES, IS_RIGHT, num_bins=num_bins)


def random_calibration(num_images: int = 200) -> Calibration:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, num_images)
    logits = random.standard_normal((num_images, 3, 4))
    logits[np.arange(num_images), :, labels] += np.array([0.5, 1.0, 2.0])
    return Calibration.build(logits, labels, seed=0)


def test_gain_is_what_a_deeper_exit_wins_less_what_it_spoils():
    gains = table()

    unsure, sure = gains.bin_of(0, 0.3), gains.bin_of(0, 0.95)

    assert gains.gain(0, unsure, 1) == 0.75
    assert gains.gain(0, sure, 1) == -0.25


def test_gain_of_the_first_answer_is_the_accuracy_of_its_exit():
    gains = table()

    assert gains.bin_of(-1, math.nan) == 0
    assert gains.row(-1, 0) == (5 / 8, 7 / 8)


def test_exits_up_to_the_answered_one_gain_nothing():
    gains = GainTable.from_calibration(random_calibration())

    for answered_exit in range(3):
        for confidence_bin in range(len(gains.edges[answered_exit]) + 1):
            assert set(gains.row(answered_exit, confidence_bin)[: answered_exit + 1]) == {0.0}


def test_gain_does_not_rise_with_confidence():
    gains = GainTable.from_calibration(random_calibration())

    for rows in gains.rows[1:]:
        for lower, higher in pairwise(rows):
            assert all(a >= b for a, b in zip(lower, higher, strict=True))


def test_pooled_bins_keep_the_gain_of_all_their_images():
    calibration = random_calibration()
    gains = GainTable.from_calibration(calibration)
    is_right, confidences = calibration.is_right(), calibration.confidences()

    expected = [gains.gain(0, gains.bin_of(0, float(sure)), 2) for sure in confidences[:, 0]]

    # Pooling moves gain between bins and loses none; float64 sums of 200 numbers.
    won = float(is_right[:, 2].mean() - is_right[:, 0].mean())
    assert np.mean(expected) == pytest.approx(won, abs=1e-12)


def test_bins_are_equally_full():
    confidences = np.linspace(0.0, 1.0, 64)[:, np.newaxis]

    gains = GainTable.from_answers(confidences, np.ones((64, 1), dtype=np.bool_), num_bins=16)

    bins = [gains.bin_of(0, float(confidence)) for confidence in confidences[:, 0]]
    assert np.bincount(bins).max() <= 5
    assert len(set(bins)) == 16


def test_equal_confidences_share_a_bin_and_no_bin_is_empty():
    confidences = np.ones((10, 2))

    gains = GainTable.from_answers(confidences, np.ones((10, 2), dtype=np.bool_))

    assert gains.edges == ((), ())
    assert gains.bin_of(0, 1.0) == gains.bin_of(0, 0.1) == 0


def test_an_answer_that_does_not_say_how_sure_it_is_counts_as_unsure():
    assert table().bin_of(0, math.nan) == 0


def test_table_of_logits_is_that_of_the_calibration_they_are_from():
    calibration = random_calibration()

    of_logits = GainTable.from_logits(
        calibration.logits, calibration.labels, calibration.temperatures
    )

    assert of_logits == GainTable.from_calibration(calibration)


@pytest.mark.parametrize(
    ("confidences", "is_right"),
    [
        pytest.param(np.zeros((0, 2)), np.zeros((0, 2), dtype=np.bool_), id="no images"),
        pytest.param(np.zeros((3, 2)), np.zeros((3, 1), dtype=np.bool_), id="other exits"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(confidences, is_right):
    with pytest.raises(ValueError, match="confidences for"):
        GainTable.from_answers(confidences, is_right)


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans(), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_every_confidence_has_a_bin_with_a_gain_in_range(images, num_bins):
    confidences = np.array([[confidence, 0.5] for confidence, _, _ in images])
    is_right = np.array([[first, second] for _, first, second in images])

    gains = GainTable.from_answers(confidences, is_right, num_bins=num_bins)

    for confidence, _, _ in images:
        assert -1.0 <= gains.gain(0, gains.bin_of(0, confidence), 1) <= 1.0
