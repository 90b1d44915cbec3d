"""Which stages a server ran, on how many images, in which lane: kept in a file that is its memory.

Written by the server while it runs and read by the benchmark at the same time; both know the same
monotonic clock, so that a period can be picked out.
"""

from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

CAPACITY: Final = 1 << 20  # calls, the oldest forgotten first; the file is sparse

_CALL: Final = np.dtype(
    [
        ("began_at", "<f8"),  # monotonic; 0 where nothing was written
        ("lane", "<i8"),  # the thread's own number, or the lane's
        ("stage", "<i4"),
        ("rows", "<i4"),  # images
        ("classified", "<i4"),  # images that the classifier also ran on
        ("threads", "<i4"),  # of the runtime
    ]
)

Calls = NDArray[np.void]
"""Structured rows: began_at, lane, stage, rows, classified, threads."""


class CallLog:
    """Takes down calls, from several threads at once.

    Mutable; one for each file.

    Args:
        path: Of the file, which is made anew.
        capacity: Calls kept.
    """

    def __init__(self, path: Path, *, capacity: int = CAPACITY) -> None:
        self._calls = np.memmap(path, dtype=_CALL, mode="w+", shape=(capacity,))
        self._places = count()  # its `next` is one step to other threads

    def add(self, *call: float) -> None:
        """Take down a call, its fields in the file's order."""
        self._calls[next(self._places) % len(self._calls)] = call


def calls_between(path: Path, began_at: float, ended_at: float) -> Calls:
    """Return the calls that began in a period, in order.

    Args:
        path: Of a file that a server may still be writing to.
        began_at: Monotonic.
        ended_at: Monotonic.
    """
    everything = np.memmap(path, dtype=_CALL, mode="r")
    starts = everything["began_at"]
    chosen = np.array(everything[(starts >= began_at) & (starts < ended_at)])
    return np.asarray(chosen[np.argsort(chosen["began_at"], kind="stable")])
