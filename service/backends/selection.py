"""Which rows of a batch go on, and whether that takes a copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.errors import BackendFailed

_REMEMBERED = 4096
_SHORT = 16  # rows; longer selections seldom come again, and would fill the memory


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Rows of a batch, in the order in which they are wanted; all of them exist."""

    rows: tuple[int, ...]
    indices: NDArray[np.int64]  # the same, made once for all tensors they are picked from
    is_run: bool  # each row follows the one before it: a view will do
    is_whole: bool  # all rows in order: nothing needs to be picked

    @property
    def start(self) -> int:
        """The first row; there is one."""
        return self.rows[0]

    @property
    def stop(self) -> int:
        """One behind the last row of a run."""
        return self.rows[-1] + 1


def select(rows: Sequence[int], *, of: int) -> Selection:
    """Return a selection of rows from a batch of so many.

    Raises:
        BackendFailed: One of them is not there.
    """
    wanted = tuple(rows)
    # Between two stages every microsecond of Python counts, and small batches are all alike.
    return _remembered(wanted, of) if len(wanted) <= _SHORT else _select(wanted, of)


def _select(wanted: tuple[int, ...], of: int) -> Selection:
    if wanted and not 0 <= min(wanted) <= max(wanted) < of:
        raise BackendFailed(f"rows {min(wanted)} to {max(wanted)} asked for, there are {of}")
    is_run = bool(wanted) and wanted == tuple(range(wanted[0], wanted[0] + len(wanted)))
    indices = np.array(wanted, dtype=np.int64)
    return Selection(wanted, indices, is_run=is_run, is_whole=is_run and len(wanted) == of)


_remembered = lru_cache(maxsize=_REMEMBERED)(_select)
