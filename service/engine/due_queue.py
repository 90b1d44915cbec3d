"""Images in the order in which they are due, from which any may be taken at any time.

Whoever leaves keeps his entry until it reaches the front or stale ones outnumber the others; which
entries are stale, their tickets say. So joining, leaving and looking cost the same however many
wait.
"""

from bisect import insort
from collections.abc import Callable
from typing import Final, TypeAlias

from service.backends.base import StageKey
from service.engine.member import Member

_Entry: TypeAlias = tuple[float, int, Member]  # due, ticket, who

# Stale entries beyond one for each image that waits: a few, so that small queues are not swept at
# every departure, and not many, because they keep what has been answered in memory.
_MAX_STALE: Final = 16


class DueQueue:
    """Images waiting for one stage, earliest due first; of equals whoever came first. Mutable.

    Attributes:
        num_waiting: How many do.
    """

    __slots__ = ("_entries", "num_waiting")

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self.num_waiting = 0

    def add(self, member: Member, due_at: float, ticket: int) -> None:
        """Let an image that waits nowhere wait here.

        Args:
            member: Which image.
            due_at: Its place in the order, an instant.
            ticket: His alone; they rise.
        """
        member.place = self
        member.ticket = ticket
        self.num_waiting += 1
        entry = (due_at, ticket, member)
        # Most come in the order in which they are due, and need not be searched a place.
        if not self._entries or self._entries[-1] < entry:
            self._entries.append(entry)
        else:
            insort(self._entries, entry)

    def forget(self, member: Member) -> None:
        """Let an image that waits here wait no longer."""
        member.place = None
        member.ticket = 0
        self.num_waiting -= 1
        if self.num_waiting == 0:
            self._entries.clear()
        elif len(self._entries) > 2 * self.num_waiting + _MAX_STALE:
            self._entries = [entry for entry in self._entries if entry[2].ticket == entry[1]]

    def pop(self) -> Member:
        """Take out who is due first; he keeps his ticket, to wait with it elsewhere.

        Raises:
            IndexError: Nobody waits.
        """
        head = self.head()
        if head is None:
            raise IndexError("nobody waits")
        del self._entries[0]  # were it left, his ticket would make it good again
        head.place = None
        self.num_waiting -= 1
        return head

    def head(self) -> Member | None:
        """Return who is due first."""
        for num_stale, (_, ticket, member) in enumerate(self._entries):
            if member.ticket == ticket:
                if num_stale:
                    del self._entries[:num_stale]
                return member
        return None

    def first(self, limit: int) -> list[Member]:
        """Return who is due first, in order, at most so many."""
        found: list[Member] = []
        for _, ticket, member in self._entries:
            if member.ticket == ticket:
                found.append(member)
                if len(found) == limit:
                    break
        return found

    def take(self, wanted: Callable[[Member], bool]) -> list[Member]:
        """Take out some of those who wait; they keep their tickets."""
        if not self.num_waiting:
            return []
        taken = [one for _, ticket, one in self._entries if one.ticket == ticket and wanted(one)]
        for member in taken:
            member.place = None
        if taken:
            self.num_waiting -= len(taken)
            self._entries = [entry for entry in self._entries if entry[2].place is self]
        return taken


class StageQueues:
    """One queue a stage, and which of them holds who is due first of all. Mutable."""

    def __init__(self) -> None:
        self._queues: dict[StageKey, DueQueue] = {}

    def add(self, member: Member, due_at: float, ticket: int) -> None:
        """Let an image wait for its stage; see `DueQueue.add`."""
        queue = self._queues.get(member.stage)
        if queue is None:
            queue = self._queues[member.stage] = DueQueue()
        queue.add(member, due_at, ticket)

    def depth(self, stage: StageKey) -> int:
        """Return how many wait for a stage."""
        queue = self._queues.get(stage)
        return 0 if queue is None else queue.num_waiting

    @property
    def num_waiting(self) -> int:
        """How many wait for any stage."""
        return sum(queue.num_waiting for queue in self._queues.values())

    def heads(self) -> list[Member]:
        """Return who is due first at each stage where anybody waits."""
        heads = []
        for queue in self._queues.values():
            if queue.num_waiting:
                head = queue.head()
                if head is not None:
                    heads.append(head)
        return heads

    def earliest(self) -> Member | None:
        """Return who is due first; of equals the deepest, who frees his features soonest."""
        heads = self.heads()
        if len(heads) > 1:
            return min(heads, key=_urgency)
        return heads[0] if heads else None

    def first(self, stage: StageKey, limit: int) -> list[Member]:
        """Return who is due first at one stage, in order, at most so many."""
        return self._queues[stage].first(limit)

    def take(self, wanted: Callable[[Member], bool]) -> list[Member]:
        """Take out some of those who wait; they keep their tickets."""
        return [one for queue in self._queues.values() for one in queue.take(wanted)]


def is_lone(member: Member) -> bool:
    """Return whether it is up to the engine alone where an image stands.

    Images that are decided together stay: one of them does not end the others' wait.
    """
    return member.classify is None


def _urgency(member: Member) -> tuple[float, int, int]:
    return member.due_at, -member.stage.stage_index, member.ticket
