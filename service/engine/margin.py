"""How long before its deadline an answer must leave, learnt from how late answers left so far."""

from typing import Final

from service.engine.quantile import RecentQuantile

_QUANTILE: Final = 0.999
_WINDOW: Final = 4096
_ENOUGH: Final = 1000  # observations of which one lies above the quantile


class AnswerMargin:
    """Learns the p99.9 of lateness: from when an answer's timer was due to its last byte handed on.

    Cautious at first: never below its initial value before a thousand answers were seen. Mutable;
    owned by the event loop.

    Args:
        max_share: Of a deadline that is kept back at most, in (0, 1).
        initial_s: Before anything is known.

    Raises:
        ValueError: One of them is out of range.
    """

    def __init__(self, *, max_share: float = 0.1, initial_s: float = 0.002) -> None:
        if not 0.0 < max_share < 1.0:
            raise ValueError(f"a margin is a share between 0 and 1 of a deadline, not {max_share}")
        if initial_s < 0.0:
            raise ValueError(f"a margin is no negative time: {initial_s} s")
        self._max_share = max_share
        self._initial_s = initial_s
        self._lateness = RecentQuantile(_QUANTILE, window=_WINDOW)
        self.learnt_s = initial_s  # the quantile, as far as it is to be believed

    def margin_s(self, deadline_s: float) -> float:
        """Return how long before a deadline its answer must be ready.

        Args:
            deadline_s: How long the deadline leaves from arrival on; negative counts as none left.
        """
        return max(0.0, min(self.learnt_s, deadline_s * self._max_share))

    def least_deadline_s(self, work_s: float) -> float:
        """Return the shortest deadline that leaves enough for the work after its margin."""
        return work_s + min(self.learnt_s, work_s * self._max_share / (1.0 - self._max_share))

    def observe(self, late_s: float) -> None:
        """Learn from an answer that left.

        Args:
            late_s: From when its timer was due to its last byte handed on; below 0 counts as 0.
        """
        self._lateness.observe(max(0.0, late_s))
        learnt_s = self._lateness.value or 0.0
        if self._lateness.num_observations < _ENOUGH:
            learnt_s = max(learnt_s, self._initial_s)
        self.learnt_s = learnt_s
