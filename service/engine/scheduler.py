"""Which batch runs next. Pure: no clock, no images, no features; the present is an argument."""

import math
from bisect import insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from service.backends.base import StageKey
from service.engine.stage_costs import StageCosts


@dataclass(frozen=True, slots=True)
class QueuedMember:
    """One image of a cohort that waits for a stage."""

    cohort_id: int
    position: int  # in its cohort
    stage: StageKey
    classify: bool  # whether it needs the stage's classifier too
    due_at: float  # for ordering alone
    finish_by: float | None  # when the stage must have ended for the sake of its deadline
    has_answer: bool  # whether it may stop where it stands
    source: int  # which handle its features are in; what cannot be joined needs one and the same

    @property
    def can_yield(self) -> bool:
        """Whether it may be shortened so that others, who have no answer yet, meet their deadlines.

        Work without a deadline never is; it would starve.
        """
        return self.has_answer and self.finish_by is not None


@dataclass(frozen=True, slots=True)
class StageBatch:
    """Images that run one stage together."""

    stage: StageKey
    members: tuple[QueuedMember, ...]  # earliest due first

    @property
    def num_classified(self) -> int:
        """How many of them the classifier looks at."""
        return sum(member.classify for member in self.members)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What the scheduler let go of: what runs now, and who has run out of time for it."""

    batch: StageBatch | None
    expired: tuple[QueuedMember, ...]  # each has an answer already, which stands


_Entry: TypeAlias = tuple[float, int, QueuedMember]  # due, order of arrival, who
_Queue: TypeAlias = Sequence[_Entry]


class StageScheduler:
    """Queues by stage; the next batch is of the stage where the most urgent image waits.

    Urgent is who is due first; of equals the deeper stage, which frees its features sooner. Images
    with an answer stand back where those without would otherwise miss their deadlines. Mutable;
    touched by the lane alone.

    Args:
        stage_costs: What stages are expected to take; knows the largest batch.
        can_join: Whether features of different handles can run together.
    """

    def __init__(self, stage_costs: StageCosts, *, can_join: bool) -> None:
        self._stage_costs = stage_costs
        self._can_join = can_join
        self._queues: dict[StageKey, list[_Entry]] = {}
        self._num_added = 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not any(self._queues.values())

    def depth(self, stage: StageKey) -> int:
        """Return how many images wait for a stage."""
        return len(self._queues.get(stage, ()))

    def add(self, member: QueuedMember) -> None:
        """Let an image wait for its stage."""
        insort(self._queues.setdefault(member.stage, []), (member.due_at, self._num_added, member))
        self._num_added += 1

    def drop(self, cohort_ids: Collection[int]) -> frozenset[StageKey]:
        """Forget all images of some cohorts.

        Returns:
            The stages that lost any.
        """
        touched = set()
        for stage, queue in self._queues.items():
            kept = [entry for entry in queue if entry[2].cohort_id not in cohort_ids]
            if len(kept) < len(queue):
                self._queues[stage] = kept
                touched.add(stage)
        return frozenset(touched)

    def next_batch(self, now: float, *, spare_s: float = math.inf) -> Dispatch:
        """Take out what runs next.

        Args:
            now: The present instant.
            spare_s: For how long others may run before somebody admitted misses his first answer.
        """
        choice = self._choose(self._queues, now)
        if choice is not None and self._must_stand_back(choice, spare_s):
            choice = self._choose(self._queues_without_answer(), now) or choice
        if choice is None:
            return Dispatch(None, ())
        gone = {order for _, order, _ in (*choice.chosen, *choice.expired)}
        queue = self._queues[choice.stage]
        self._queues[choice.stage] = [entry for entry in queue if entry[1] not in gone]
        members = tuple(member for _, _, member in choice.chosen)
        return Dispatch(
            StageBatch(choice.stage, members) if members else None,
            tuple(member for _, _, member in choice.expired),
        )

    def _choose(self, queues: Mapping[StageKey, _Queue], now: float) -> "_Choice | None":
        waiting = [(stage, queue) for stage, queue in queues.items() if queue]
        if not waiting:
            return None
        stage, queue = min(waiting, key=_urgency)
        candidates = self._joinable(queue)[: self._stage_costs.max_batch]
        alone = _AloneTimes(
            now + self._stage_costs.expected_s(stage, 1, 0),
            now + self._stage_costs.expected_s(stage, 1, 1),
        )
        expired = [entry for entry in candidates if alone.expires(entry[2])]
        live = [entry for entry in candidates if not alone.expires(entry[2])]
        return _Choice(stage, live[: self._size(stage, live, now, alone)], expired)

    def _queues_without_answer(self) -> dict[StageKey, _Queue]:
        return {
            stage: [entry for entry in queue if not entry[2].can_yield]
            for stage, queue in self._queues.items()
        }

    def _joinable(self, queue: _Queue) -> _Queue:
        if self._can_join:
            return queue
        source = queue[0][2].source
        return [entry for entry in queue if entry[2].source == source]

    def _size(self, stage: StageKey, queue: _Queue, now: float, alone: "_AloneTimes") -> int:
        """How many of a queue may run together so that the earliest deadline of them is kept."""
        if not queue:
            return 0
        finish_by = list(accumulate((alone.finish_by(member) for _, _, member in queue), min))
        if finish_by[-1] == math.inf:
            return len(queue)
        num_classified = list(accumulate(member.classify for _, _, member in queue))
        for size in range(len(queue), 1, -1):
            batch_s = self._stage_costs.expected_s(stage, size, num_classified[size - 1])
            if now + batch_s <= finish_by[size - 1]:
                return size
        return 1

    def _must_stand_back(self, choice: "_Choice", spare_s: float) -> bool:
        if not choice.chosen or not choice.chosen[0][2].can_yield:
            return False
        num_classified = sum(member.classify for _, _, member in choice.chosen)
        batch_s = self._stage_costs.expected_s(choice.stage, len(choice.chosen), num_classified)
        return batch_s > spare_s


@dataclass(frozen=True, slots=True)
class _AloneTimes:
    """When a stage would end if it began now with one image."""

    trunk_ends_at: float
    classifier_ends_at: float

    def fits(self, member: QueuedMember) -> bool:
        """Whether an image alone would keep its deadline."""
        ends_at = self.classifier_ends_at if member.classify else self.trunk_ends_at
        return member.finish_by is None or ends_at <= member.finish_by

    def expires(self, member: QueuedMember) -> bool:
        """Whether an image is better off with the answer it has."""
        return member.has_answer and not self.fits(member)

    def finish_by(self, member: QueuedMember) -> float:
        """When an image wants its batch to end; who is late even alone is helped by no size."""
        return member.finish_by if member.finish_by is not None and self.fits(member) else math.inf


@dataclass(frozen=True, slots=True)
class _Choice:
    """Entries of one queue, to run and to give up."""

    stage: StageKey
    chosen: _Queue
    expired: _Queue


def _urgency(stage_and_queue: tuple[StageKey, _Queue]) -> tuple[float, int, int]:
    stage, queue = stage_and_queue
    due_at, order, _ = queue[0]
    return due_at, -stage.stage_index, order
