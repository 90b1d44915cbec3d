"""Work without a deadline: it takes what is left over, and, once overdue, the share it is owed."""

from service.backends.base import StageKey
from service.engine.due_queue import StageQueues
from service.engine.member import Member
from service.engine.stage_batch import EarliestFirst, StageBatch, Turn


class BackgroundQueue:
    """Images without a deadline, earliest due first. Mutable; owned by the scheduler.

    Args:
        earliest_first: How batches are made.
        share: Of stage time that is guaranteed to overdue work while others wait, in ``[0, 1)``.

    Raises:
        ValueError: `share` is out of range.
    """

    def __init__(self, earliest_first: EarliestFirst, *, share: float) -> None:
        if not 0.0 <= share < 1.0:
            raise ValueError(f"a share that leaves something to others is in [0, 1), not {share}")
        self._earliest_first = earliest_first
        self._odds = share / (1.0 - share)
        self._queues = StageQueues()
        self._owed_s = 0.0

    def add(self, member: Member, ticket: int) -> None:
        """Let an image wait."""
        self._queues.add(member, member.due_at, ticket)

    def depth(self, stage: StageKey) -> int:
        """Return how many images wait for a stage."""
        return self._queues.depth(stage)

    @property
    def num_waiting(self) -> int:
        """How many images wait for any stage."""
        return self._queues.num_waiting

    def next_batch(self, turn: Turn) -> StageBatch | None:
        """Return whose turn it is among these."""
        return self._earliest_first.batch(self._queues, turn, turn.limit_s)

    def owed_batch(self, turn: Turn) -> StageBatch | None:
        """Return a batch of overdue work if the time it is owed pays for all of it.

        Not for one image as soon as that is paid for: larger batches get more out of the same time.
        """
        if not self._is_overdue(turn.now):
            self._owed_s = 0.0
            return None
        batch = self.next_batch(turn) if self._owed_s > 0.0 else None
        return batch if batch is not None and batch.expected_s <= self._owed_s else None

    def others_ran(self, seconds: float, now: float) -> None:
        """Note that work with a deadline was given a batch; overdue work is owed its part."""
        if self._is_overdue(now):
            self._owed_s += self._odds * seconds

    def charge(self, seconds: float) -> None:
        """Note that overdue work was given a batch before others."""
        self._owed_s -= seconds

    def _is_overdue(self, now: float) -> bool:
        head = self._queues.earliest()
        return head is not None and head.due_at < now
