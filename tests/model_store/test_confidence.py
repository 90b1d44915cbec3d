import timeit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from model_store.confidence import max_softmax, probabilities

EPSILON = float(np.finfo(np.float64).eps)

tables = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=12),
    elements=st.floats(-1e4, 1e4, width=32),
)
temperatures = st.floats(0.05, 20)


def test_two_classes_give_the_logistic_function_of_their_lead():
    logits = np.array([[2.0, -1.0]], dtype=np.float32)

    confidence = max_softmax(logits, 1.5)

    assert confidence == pytest.approx(1 / (1 + np.exp(-2.0)), rel=4 * EPSILON)


def test_equal_logits_share_the_probability():
    assert max_softmax(np.zeros(4, dtype=np.float32), 1.0) == 0.25


def test_leads_that_saturate_float32_keep_distinct_confidences():
    leads = np.arange(18, 36, dtype=np.float32)
    logits = np.stack([leads, np.zeros_like(leads)], axis=1)
    narrow = np.exp(logits - logits.max(axis=1, keepdims=True))
    narrow /= narrow.sum(axis=1, keepdims=True)

    confidences = max_softmax(logits, 1.0)

    assert (narrow.max(axis=1) == 1).all()
    assert (np.diff(confidences) > 0).all()
    assert confidences.max() < 1


def test_a_higher_temperature_is_less_sure():
    logits = np.array([3.0, 1.0, 0.0], dtype=np.float32)

    confidences = [float(max_softmax(logits, t)) for t in (0.5, 1.0, 2.0, 20.0)]

    assert confidences == sorted(confidences, reverse=True)


def test_hopeless_classes_cost_no_confidence_even_where_the_quotient_overflows():
    logits = np.array([[1e30, -1e30, 0.0]], dtype=np.float32)

    assert max_softmax(logits, 1e-300) == 1.0


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(strange: float):
    logits = np.array([[1.0, strange]], dtype=np.float32)

    with pytest.raises(ValueError, match="NaN or an infinity"):
        max_softmax(logits, 1.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature: float):
    with pytest.raises(ValueError, match="temperature must be finite and positive"):
        probabilities(np.zeros((1, 2), dtype=np.float32), temperature)


@given(logits=tables, temperature=temperatures)
def test_confidence_is_the_largest_probability_to_the_bit(
    logits: NDArray[np.float32], temperature: float
):
    table = probabilities(logits, temperature)

    confidences = max_softmax(logits, temperature)

    assert confidences.dtype == table.dtype == np.float64
    assert confidences.shape == logits.shape[:-1]
    assert np.array_equal(confidences, table.max(axis=-1))
    assert confidences.min() >= (1 - 12 * EPSILON) / logits.shape[-1]
    # Each row is a quotient of at most 12 terms by their sum: an ulp of rounding for each.
    assert np.allclose(table.sum(axis=-1), 1, rtol=0, atol=16 * EPSILON)


@given(logits=tables, temperature=temperatures)
def test_a_row_is_as_confident_alone_as_in_a_batch(logits: NDArray[np.float32], temperature: float):
    rows = logits.reshape(-1, logits.shape[-1])

    alone = [max_softmax(row, temperature) for row in rows]

    assert np.array_equal(alone, max_softmax(rows, temperature))


@given(logits=tables, temperature=temperatures)
def test_the_logits_are_left_as_they_were(logits: NDArray[np.float32], temperature: float):
    wide = logits.astype(np.float64)
    before = wide.copy()

    probabilities(wide, temperature)

    assert np.array_equal(wide, before)


def test_a_window_costs_little_more_than_its_exponentials():
    logits = np.random.default_rng(0).normal(size=(256, 10)).astype(np.float32)
    wide = logits.astype(np.float64)

    ours = min(timeit.repeat(lambda: max_softmax(logits, 1.5), number=50, repeat=7))
    floor = min(timeit.repeat(lambda: np.exp(wide), number=50, repeat=7))

    assert ours < 20 * floor  # 2 to 4 where measured; a loop over rows is 100
