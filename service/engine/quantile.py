"""A high quantile of what was seen lately, cheap enough to ask after every request."""

from bisect import insort
from collections import deque
from typing import Final

_NUM_BLOCKS: Final = 16  # of the window, each forgotten whole


class RecentQuantile:
    """The nearest-rank quantile of the last observations, exact though few of them are kept.

    The window is cut into blocks, and of each block only its largest values are kept: as many as
    may lie above the quantile of the whole window. Mutable; owned by one thread.

    Args:
        share: Of the observations that lie at or below it, e.g. 0.999; the nearer to 1, the less
            is kept.
        window: Observations remembered; between 15/16 of them and all.

    Raises:
        ValueError: The share is not within (0, 1), or the window holds less than one of each block.
    """

    def __init__(self, share: float, *, window: int) -> None:
        if not 0.0 < share < 1.0:
            raise ValueError(f"a quantile's share lies between 0 and 1, not at {share}")
        if window < _NUM_BLOCKS:
            raise ValueError(f"a window holds at least {_NUM_BLOCKS} observations, not {window}")
        self._above_share = 1.0 - share
        self._block_size = window // _NUM_BLOCKS
        self._num_kept = int(window * self._above_share) + 1
        self._full_blocks: deque[list[float]] = deque(maxlen=_NUM_BLOCKS - 1)
        self._block: list[float] = []  # the largest of the block being filled, rising
        self._num_in_block = 0
        self.value: float | None = None  # None before the first observation

    @property
    def num_observations(self) -> int:
        """How many the quantile is of."""
        return len(self._full_blocks) * self._block_size + self._num_in_block

    def observe(self, value: float) -> None:
        """Take one in."""
        if self._num_in_block == self._block_size:
            self._begin_block()
        self._num_in_block += 1
        if len(self._block) < self._num_kept:
            insort(self._block, value)
        elif value > self._block[0]:
            del self._block[0]
            insort(self._block, value)
        # Between two blocks nothing is forgotten: only what lies above can move it noticeably.
        if self.value is None or value > self.value:
            self.value = self._read()

    def _begin_block(self) -> None:
        self._full_blocks.append(self._block)
        self._block, self._num_in_block = [], 0
        self.value = self._read()

    def _read(self) -> float:
        kept = sorted(value for block in (*self._full_blocks, self._block) for value in block)
        return kept[-1 - int(self.num_observations * self._above_share)]
