"""What runs together, and how many of those who are due first can."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress

from service.backends.base import ModelKey, StageKey
from service.engine.classifier_choice import is_classified
from service.engine.due_queue import StageQueues
from service.engine.member import Kind, Member
from service.engine.stage_costs import StageCosts
from service.engine.stage_prices import ModelPrices


@dataclass(slots=True)
class StageBatch:
    """Images that run one stage together."""

    stage: StageKey
    members: list[Member]
    classify: list[bool]  # of each member, whether the stage's classifier looks at it
    expected_s: float
    kind: Kind

    def leave_out_gone(self) -> None:
        """Leave out images whose cohort was settled since they were taken."""
        live = [not member.is_gone for member in self.members]
        self.members = list(compress(self.members, live))
        self.classify = list(compress(self.classify, live))


@dataclass(frozen=True, slots=True)
class Turn:
    """One lane's turn to take a batch."""

    now: float
    max_size: int  # its part of what waits
    spare_s: float  # for how long it may run what is not mandatory
    longest_s: float  # how long a batch that is not mandatory may take
    is_last_lane: bool = False  # whether no other lane is left for who does not run now

    @property
    def limit_s(self) -> float:
        """How long more than one image that are not mandatory may take."""
        return min(self.spare_s, self.longest_s)


@dataclass(frozen=True, slots=True)
class EarliestFirst:
    """Makes batches of those who are due first.

    Args:
        stage_costs: What stages are expected to take.
        prices: The same, added up, by model.
        can_join: Whether features of different handles can run together.
    """

    stage_costs: StageCosts
    prices: Mapping[ModelKey, ModelPrices]
    can_join: bool

    def batch(
        self, queues: StageQueues, turn: Turn, limit_s: float = math.inf
    ) -> StageBatch | None:
        """Return whose turn it is, and as many with him as keep the earliest deadline of them.

        Args:
            queues: Who waits.
            turn: The lane's.
            limit_s: How long more than one image may take.
        """
        head = queues.earliest()
        if head is None:
            return None
        prices = self.prices[head.stage.model]
        size = min(turn.max_size, prices.best_batch[head.stage.stage_index])
        members = queues.first(head.stage, size)
        if not self.can_join:
            members = [member for member in members if member.source == members[0].source]
        return self._as_many_as_fit(members, prices, turn.now, limit_s)

    def _as_many_as_fit(
        self, members: Sequence[Member], prices: ModelPrices, now: float, limit_s: float
    ) -> StageBatch:
        stage = members[0].stage
        classify = [is_classified(member, prices, now) for member in members]
        num_classified = list(accumulate(classify))
        finish_by = list(accumulate((_finish_by(one, prices, now) for one in members), min))
        too_many = len(members) + 1
        size, probe = 1, len(members)
        batch_s = self.stage_costs.expected_s(stage, 1, num_classified[0])
        # Batches only get longer and deadlines only earlier, so what fits is found by halving;
        # most often all do.
        while probe > size:
            probe_s = self.stage_costs.expected_s(stage, probe, num_classified[probe - 1])
            if probe_s <= limit_s and now + probe_s <= finish_by[probe - 1]:
                size, batch_s = probe, probe_s
            else:
                too_many = probe
            probe = (size + too_many) // 2
        return StageBatch(stage, list(members[:size]), classify[:size], batch_s, members[0].kind)


def _finish_by(member: Member, prices: ModelPrices, now: float) -> float:
    """Return when an image wants the stage to end; who is late even alone is helped by no size."""
    stage_index = member.stage.stage_index
    rest_s = prices.alone_s[stage_index + 1][member.mandatory_exit]
    alone_s = prices.alone_s[stage_index][member.mandatory_exit] - rest_s
    for due_at in (member.answer_by, member.deadline_at):
        if now + alone_s <= due_at - rest_s:
            return due_at - rest_s
    return math.inf
