"""Where rows are copied, and where they are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.backends.onnx_features import HostFeatures
from service.backends.selection import select

ROWS = st.lists(st.integers(0, 5), max_size=8).map(tuple)


def batch(offset: int = 0) -> NDArray[np.float32]:
    return np.arange(offset, offset + 24, dtype=np.float32).reshape(6, 2, 2)


def test_a_whole_batch_is_handed_on_as_it_is():
    array = batch()

    picked = HostFeatures().pick([array], [select((0, 1, 2, 3, 4, 5), of=6)])

    assert picked is array


def test_neighbouring_rows_are_a_view():
    array = batch()

    picked = HostFeatures().pick([array], [select((2, 3, 4), of=6)])

    assert np.shares_memory(picked, array)
    np.testing.assert_array_equal(picked, array[2:5])


def test_what_goes_to_the_runtime_is_contiguous():
    picked = HostFeatures().pick([batch()], [select((5, 1), of=6)])

    assert picked.flags.c_contiguous
    np.testing.assert_array_equal(picked, batch()[[5, 1]])


def test_joined_runs_are_their_rows_one_part_after_another():
    selections = [select((0, 1, 2, 3, 4, 5), of=6), select((2,), of=6), select((3, 4), of=6)]

    joined = HostFeatures().pick([batch(), batch(100), batch(200)], selections)

    expected = np.concatenate([batch(), batch(100)[2:3], batch(200)[3:5]])
    np.testing.assert_array_equal(joined, expected)


def test_long_selections_are_what_short_ones_are():
    rows = tuple(range(40, 0, -1))

    selection = select(rows, of=64)

    assert (selection.rows, selection.is_run, selection.is_whole) == (rows, False, False)
    assert select(tuple(range(64)), of=64).is_whole


@given(left=ROWS, right=ROWS)
def test_joined_parts_are_their_rows_one_part_after_another(
    left: tuple[int, ...], right: tuple[int, ...]
):
    selections = [select(left, of=6), select(right, of=6)]

    joined = HostFeatures().pick([batch(), batch(100)], selections)

    expected = np.concatenate([batch()[list(left)], batch(100)[list(right)]])
    np.testing.assert_array_equal(joined, expected)


@pytest.mark.parametrize(
    ("rows", "is_whole", "is_run"),
    [
        ((0, 1, 2), True, True),
        ((0, 1), False, True),
        ((1, 2), False, True),
        ((2,), False, True),
        ((0, 2), False, False),
        ((2, 1, 0), False, False),
        ((1, 1), False, False),
    ],
)
def test_a_selection_knows_what_it_takes(rows: tuple[int, ...], is_whole: bool, is_run: bool):
    selection = select(rows, of=3)

    assert (selection.is_whole, selection.is_run) == (is_whole, is_run)
