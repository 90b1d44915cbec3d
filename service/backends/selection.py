"""Which rows of a batch go on, and whether that takes a copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from service.errors import BackendFailed

_BATCH_SIZES = 1024  # remembered, of which a server uses a few


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of a batch, in the order in which they are wanted; all of them exist."""

    rows: tuple[int, ...]
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
    whole = _whole(of)
    # Nearly always so, and between two stages every microsecond of Python counts.
    if wanted == whole.rows:
        return whole
    if wanted and not 0 <= min(wanted) <= max(wanted) < of:
        raise BackendFailed(f"rows {min(wanted)} to {max(wanted)} asked for, there are {of}")
    is_run = bool(wanted) and wanted == tuple(range(wanted[0], wanted[0] + len(wanted)))
    return Selection(wanted, is_run=is_run, is_whole=False)


@lru_cache(maxsize=_BATCH_SIZES)
def _whole(num_rows: int) -> Selection:
    return Selection(tuple(range(num_rows)), is_run=True, is_whole=True)
