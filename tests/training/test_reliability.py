import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.confidence import probabilities
from training.reliability import accuracy, expected_calibration_error, negative_log_likelihood

LN2, LN3 = math.log(2), math.log(3)


def test_accuracy_is_the_share_of_largest_logits_at_the_label():
    logits = np.array([[0, 1, 2], [5, 1, 2], [0, 3, 2], [9, 8, 7]], np.float32)

    assert accuracy(logits, np.array([2, 0, 2, 1])) == 0.5


def test_likelihood_of_two_images_by_hand():
    # p(label) = 3/4 and 1/3.
    logits = np.array([[LN3, 0, -1e9], [0, 0, 0]], np.float32)

    nll = negative_log_likelihood(logits, np.array([0, 2]))

    assert nll == pytest.approx((math.log(4 / 3) + math.log(3)) / 2, rel=1e-6)


def test_temperature_divides_the_logits():
    # ln 9 / 2 = ln 3: p(label) = 3/4.
    logits = np.array([[2 * LN3, 0]], np.float32)

    nll = negative_log_likelihood(logits, np.array([0]), 2.0)

    assert nll == pytest.approx(math.log(4 / 3), rel=1e-6)


def test_likelihood_of_a_hopeless_label_is_large_and_finite():
    logits = np.array([[1000, 0]], np.float32)

    assert negative_log_likelihood(logits, np.array([1])) == pytest.approx(1000)


def test_calibration_error_of_four_images_in_three_bins_by_hand():
    # Bins of a fifth: 0.30 alone and wrong; 0.70 and 0.80 with one right; 1.00 alone and right.
    confidences = np.array([0.30, 0.70, 0.80, 1.00])
    is_right = np.array([False, True, False, True])

    error = expected_calibration_error(confidences, is_right, num_bins=5)

    assert error == pytest.approx((1 * 0.30 + 2 * abs(0.75 - 0.5) + 1 * 0) / 4)


def test_a_bins_upper_edge_belongs_to_it():
    # 0.5 is in (0, 1/2]; 0.6 is not: apart, both gaps count; together they would cancel.
    confidences, is_right = np.array([0.5, 0.6]), np.array([True, False])

    assert expected_calibration_error(confidences, is_right, num_bins=2) == pytest.approx(0.55)
    assert expected_calibration_error(confidences, is_right, num_bins=1) == pytest.approx(0.05)


def test_no_confidence_at_all_is_in_the_first_bin():
    assert expected_calibration_error(np.array([0.0]), np.array([True])) == 1


def test_an_exit_that_is_right_as_often_as_it_says_has_no_error():
    confidences = np.full(10, 0.7)

    error = expected_calibration_error(confidences, np.arange(10) < 7)

    assert error == pytest.approx(0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_calibration_error_is_a_share_no_less_than_the_gap_of_the_means(
    images: list[tuple[float, bool]],
):
    confidences = np.array([confidence for confidence, _ in images])
    is_right = np.array([right for _, right in images])

    error = expected_calibration_error(confidences, is_right)

    # Rounding of at most 50 sums of numbers below 1.
    assert -1e-12 + abs(confidences.mean() - is_right.mean()) <= error <= 1 + 1e-12


@given(seed=st.integers(0, 1000), temperature=st.floats(0.2, 5))
def test_likelihood_agrees_with_the_calibrated_probabilities(seed: int, temperature: float):
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(8, 4)).astype(np.float32)
    labels = draw.integers(0, 4, 8)

    nll = negative_log_likelihood(logits, labels, temperature)

    own = probabilities(logits, temperature)[np.arange(8), labels]
    assert nll == pytest.approx(-np.log(own).mean(), rel=1e-9)
