"""The margin before deadlines as a front end has it: learnt in one place, from all front ends."""

from collections.abc import Callable

from service.engine.margin import AnswerMargin


class RemoteMargin:
    """What the engine learnt of how late answers leave, and where it learns it from.

    Args:
        learnt: Kept up to date by the engine's board.
        tell: Passes on how late an answer left.
    """

    def __init__(self, learnt: AnswerMargin, tell: Callable[[float], None]) -> None:
        self._learnt = learnt
        self._tell = tell

    def margin_s(self, deadline_s: float) -> float:
        """Return how long before a deadline its answer must be ready."""
        return self._learnt.margin_s(deadline_s)

    def least_deadline_s(self, work_s: float) -> float:
        """Return the shortest deadline that leaves enough for the work after its margin."""
        return self._learnt.least_deadline_s(work_s)

    def observe(self, late_s: float) -> None:
        """Have the engine learn from an answer that left."""
        self._tell(late_s)
