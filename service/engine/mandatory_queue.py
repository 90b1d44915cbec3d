"""First answers: the work that was promised when a request was admitted."""

from service.backends.base import StageKey
from service.engine.due_queue import StageQueues
from service.engine.member import Member
from service.engine.stage_batch import EarliestFirst, StageBatch, Turn


class MandatoryQueue:
    """Images with a deadline and without an answer, earliest due first. Mutable.

    Args:
        earliest_first: How batches are made.
    """

    def __init__(self, earliest_first: EarliestFirst) -> None:
        self._earliest_first = earliest_first
        self._queues = StageQueues()

    def add(self, member: Member, ticket: int) -> None:
        """Let an image wait."""
        self._queues.add(member, member.due_at, ticket)

    def depth(self, stage: StageKey) -> int:
        """Return how many images wait for a stage."""
        return self._queues.depth(stage)

    def take_hopeless(self, now: float) -> list[Member]:
        """Let those wait no longer who miss even their true deadline if they run alone, now.

        Only who is due first is looked at; the others run out of time later.
        """
        hopeless: list[Member] = []
        while late := [head for head in self._queues.heads() if self._is_hopeless(head, now)]:
            for member in late:
                if member.place is not None:
                    member.place.forget(member)
            hopeless.extend(late)
        return hopeless

    def next_batch(self, turn: Turn) -> StageBatch | None:
        """Return whose turn it is, as many together as keeps the earliest deadline among them."""
        return self._earliest_first.batch(self._queues, turn)

    def _is_hopeless(self, member: Member, now: float) -> bool:
        prices = self._earliest_first.prices[member.stage.model]
        return (
            now + prices.alone_s[member.stage.stage_index][member.mandatory_exit]
            > member.deadline_at
        )
