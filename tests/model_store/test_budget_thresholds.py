import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store.budget import plan_budget
from model_store.costs import ExitCosts
from model_store.counts import cumulative_counts
from model_store.thresholds import HoldoutConfidences, first_exits

COSTS = ExitCosts.from_cumulative([10, 25, 45, 80])
NUM_EXITS = COSTS.num_exits


@st.composite
def tables(draw: st.DrawFn) -> NDArray[np.float64]:
    """Few distinct values, hence many ties; ones among them."""
    row = st.lists(st.integers(0, 4), min_size=NUM_EXITS, max_size=NUM_EXITS)
    return np.array(draw(st.lists(row, min_size=1, max_size=30)), dtype=np.float64) / 4


def fitted_step_by_step(table: NDArray[np.float64], asked: tuple[int, ...]) -> list[float | None]:
    """The same by plain enumeration, nothing sorted beforehand."""
    alive, gone, thresholds = set(range(len(table))), 0, []
    for column, wanted in zip(table.T, asked, strict=True):
        standing = sorted((column[i] for i in alive), reverse=True)
        m = wanted - gone
        threshold: float | None = None
        if wanted == len(table) or not alive:
            threshold = 0.0
        elif m > 0:
            value = standing[m - 1]
            above = [p for p in standing if p > value]
            upto = len(above) + standing.count(value)
            threshold = value if upto - m <= m - len(above) else min(above, default=None)
        leaving = {i for i in alive if threshold is not None and column[i] >= threshold}
        thresholds.append(threshold)
        alive -= leaving
        gone += len(leaving)
    return thresholds


@given(
    table=tables(), cuts=st.lists(st.floats(0, 1), min_size=NUM_EXITS - 1, max_size=NUM_EXITS - 1)
)
def test_thresholds_are_those_of_plain_enumeration_whatever_is_tied(
    table: NDArray[np.float64], cuts: list[float]
):
    asked = (*sorted(round(cut * len(table)) for cut in cuts), len(table))

    thresholds = HoldoutConfidences(table).thresholds(asked)

    assert list(thresholds) == fitted_step_by_step(table, asked)


@given(
    num_images=st.integers(1, 200),
    mean_macs=st.floats(10, 79.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_distinct_confidences_leave_in_the_planned_shares_to_one_image(
    num_images: int, mean_macs: float, seed: int
):
    generator = np.random.default_rng(seed)
    ranks = np.tile(np.arange(num_images), (NUM_EXITS, 1))
    table = generator.permuted(ranks, axis=1).T / num_images
    shares = plan_budget(COSTS, 1000, round(1000 * mean_macs)).shares

    thresholds = HoldoutConfidences(table).thresholds(cumulative_counts(shares, num_images))

    realised = np.bincount(first_exits(table, thresholds), minlength=NUM_EXITS) / num_images
    # One image, and the millionth of one by which counts are rounded down.
    assert np.abs(realised - shares).max() <= (1 + 1e-6) / num_images


def test_the_same_counts_are_fitted_once():
    holdout = HoldoutConfidences(np.array([[0.5, 0.6], [0.7, 0.8]]))

    assert holdout.thresholds([1, 2]) is holdout.thresholds((1, 2))


@pytest.mark.parametrize(
    "table",
    [
        pytest.param([[0.5, float("nan")]], id="NaN"),
        pytest.param([], id="empty"),
        pytest.param([0.5, 0.6], id="one dimension"),
    ],
)
def test_a_table_without_a_meaning_is_refused(table: list[float]):
    with pytest.raises(ValueError, match="hold-out confidences"):
        HoldoutConfidences(np.array(table))


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param((2,), id="too few exits"),
        pytest.param((1, 1), id="images left over"),
        pytest.param((3, 2), id="falling"),
    ],
)
def test_counts_that_no_threshold_can_meet_are_refused(asked: tuple[int, ...]):
    holdout = HoldoutConfidences(np.array([[0.5, 0.6], [0.7, 0.8]]))

    with pytest.raises(ValueError, match="cumulative counts"):
        holdout.thresholds(asked)
