"""Rows of arrays in the host's memory: picked where they must be, and seen where a view will do."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.backends.selection import Selection

HostArray = NDArray[np.float32]


def pick(arrays: Sequence[HostArray], selections: Sequence[Selection]) -> HostArray:
    """Return the selected rows of each array, one array after another; see `TensorStore.pick`.

    A run of rows of one array is a view; anything else is copied once.
    """
    if len(arrays) == 1:
        return _rows(arrays[0], selections[0])
    if all(selection.is_run for selection in selections):
        # Many requests of one image each come this way: a µs for each, were it done in Python.
        return np.concatenate(list(map(_rows, arrays, selections)))
    num_rows = sum(len(selection.rows) for selection in selections)
    joined = np.empty((num_rows, *arrays[0].shape[1:]), dtype=np.float32)
    end = 0
    for array, selection in zip(arrays, selections, strict=True):
        start, end = end, end + len(selection.rows)
        _copy_rows(array, selection, joined[start:end])
    return joined


def _rows(array: HostArray, selection: Selection) -> HostArray:
    if selection.is_whole:
        return array
    if selection.is_run:
        return array[selection.start : selection.stop]
    return array.take(selection.indices, axis=0)


def _copy_rows(array: HostArray, selection: Selection, target: HostArray) -> None:
    if not selection.rows:
        return
    if selection.is_run:
        target[:] = array[selection.start : selection.stop]
        return
    # Out-of-range rows were refused; told to look for them, `take` would go through a buffer.
    np.take(array, selection.indices, axis=0, out=target, mode="clip")
