"""Which batch runs next. Pure: no clock, no images, no features; the present is an argument.

There are no phases. An image is only ever waiting to run one stage, so a new arrival and one
halfway through the network are queued by the same rules, and a batch is whatever should run now of
what waits at one stage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from model_store.gains import GainTable
from service.backends.base import ModelKey, StageKey
from service.engine.arrivals import Arrivals
from service.engine.background_queue import BackgroundQueue
from service.engine.mandatory_queue import MandatoryQueue
from service.engine.member import Kind, Member
from service.engine.optional_queue import OptionalQueue
from service.engine.stage_batch import EarliestFirst, StageBatch, Turn
from service.engine.stage_costs import StageCosts
from service.engine.stage_prices import ModelPrices

__all__ = ["Dispatch", "StageBatch", "StageScheduler"]

# First answers yield to better ones only while this many times the longest batch of those is spare:
# half of the shortest deadline. With none kept back, a simulated server at 0.9 of its capacity lost
# 4 % of its requests; whether it is one, two or three makes little difference.
_RESERVED_BATCHES: Final = 3.0

# A batch that takes no more than this many times its part of the best ones is not worth delaying.
_FULL_ENOUGH: Final = 1.1


@dataclass(slots=True)
class Dispatch:
    """What the scheduler lets go of. None of these wait any longer."""

    batch: StageBatch | None = None
    expired: list[Member] = field(default_factory=list)  # OPTIONAL: it never fitted any more
    crowded_out: list[Member] = field(default_factory=list)  # OPTIONAL: it did, but others ran
    hopeless: list[Member] = field(default_factory=list)  # MANDATORY: misses its true deadline


class StageScheduler:
    """Queues by stage, and the order in which they are served.

    First answers come first, earliest due first. Where they can easily spare the time, a batch of
    better answers goes before them that would be lost by waiting, or while so few of them wait that
    they run cheaper a little later, together with others. Better answers run in the
    order of expected gain per second. Work without a deadline gets what is left over; once it is
    overdue, the share of stage time that it is guaranteed. Whoever is not expected to gain anything
    runs when nothing else waits. Where all lanes go to others, who gains nothing has his answer at
    once: to wait on would bring him nothing but the risk of being late.

    Mutable; touched under the engine's lock alone.

    Args:
        stage_costs: What stages are expected to take.
        gains: What deeper exits should bring, of every model that is scheduled.
        can_join: Whether features of different handles can run together.
        background_share: Guaranteed to overdue work without a deadline, in ``[0, 1)``.

    Raises:
        ValueError: `background_share` is out of range.
    """

    def __init__(
        self,
        stage_costs: StageCosts,
        gains: Mapping[ModelKey, GainTable],
        *,
        can_join: bool,
        background_share: float = 0.1,
    ) -> None:
        self._prices = {
            model: ModelPrices(model, table.num_exits, stage_costs)
            for model, table in gains.items()
        }
        earliest_first = EarliestFirst(stage_costs, self._prices, can_join)
        self._mandatory = MandatoryQueue(earliest_first)
        self._optional = OptionalQueue(earliest_first, gains)
        self._background = BackgroundQueue(earliest_first, share=background_share)
        self._arrivals = Arrivals()
        self._tickets = count(1)
        self._num_waiting = 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return self._num_waiting == 0

    def depth(self, stage: StageKey) -> int:
        """Return how many images wait for a stage."""
        return (
            self._arrivals.depth(stage)
            + self._mandatory.depth(stage)
            + self._optional.depth(stage)
            + self._background.depth(stage)
        )

    def add(self, member: Member) -> None:
        """Let an image wait for `member.stage`; its place in line is found at the next turn."""
        self._arrivals.add(member)
        self._num_waiting += 1

    def remove(self, member: Member) -> None:
        """Mark an image as gone and forget it; harmless where it waits nowhere.

        The one way to do so, for every member of a settled cohort.
        """
        member.is_gone = True
        if member.place is not None:
            member.place.forget(member)
            self._num_waiting -= 1

    def next_batch(
        self,
        now: float,
        *,
        spare_s: float,
        idle_lanes: int,
        longest_optional_s: float,
        going_rate: float = 0.0,
    ) -> Dispatch:
        """Take out what a lane runs next, and who has run out of time.

        Something runs if anybody is left, were it one image that takes longer than it should.

        Args:
            now: The present instant.
            spare_s: For how long this lane may do other work before somebody admitted misses his
                first answer.
            idle_lanes: That could take a batch now, this one included; they share what waits.
            longest_optional_s: What a batch that is not mandatory may take, if it is more than one
                image.
            going_rate: Gain per second that better answers must bring; those of single requests
                that bring less are not run.
        """
        self._optional.least_worth = going_rate
        dispatch = self.take_expired(now)
        if self._num_waiting == 0:
            return dispatch
        max_size = -(-self._num_waiting // idle_lanes)
        turn = Turn(now, max_size, spare_s, longest_optional_s, is_last_lane=idle_lanes == 1)
        batch = self._choose(turn)
        lost = self._optional.take_lost()
        self._num_waiting -= len(lost)
        dispatch.crowded_out.extend(lost)
        dispatch.batch = batch
        if batch is not None:
            self._num_waiting -= len(batch.members)
            for member in batch.members:
                if member.place is not None:
                    member.place.forget(member)
        return dispatch

    def take_expired(self, now: float) -> Dispatch:
        """Let go of who has run out of time; to be asked at `next_event_at` if no lane is idle."""
        for prices in self._prices.values():
            prices.renew(now)
        dispatch = Dispatch(expired=self._seat_arrivals(now))
        dispatch.crowded_out = self._optional.take_expired(now)
        dispatch.hopeless = self._mandatory.take_hopeless(now)
        self._num_waiting -= (
            len(dispatch.expired) + len(dispatch.crowded_out) + len(dispatch.hopeless)
        )
        self._optional.sweep(self._num_waiting)
        return dispatch

    def next_event_at(self) -> float | None:
        """Return the earliest instant at which better answers expire; None where none can."""
        return self._optional.next_expiry_at()

    def _seat_arrivals(self, now: float) -> list[Member]:
        """Find everybody new a place; return who is too late for one."""
        too_late = []
        for member in self._arrivals.take():
            ticket = next(self._tickets)
            if member.kind is Kind.MANDATORY:
                self._mandatory.add(member, ticket)
            elif member.kind is Kind.BACKGROUND:
                self._background.add(member, ticket)
            elif not self._optional.add(member, now, ticket):
                too_late.append(member)
        return too_late

    def _choose(self, turn: Turn) -> StageBatch | None:
        num_others = self._num_waiting - self._background.num_waiting
        owed = self._background.owed_batch(turn) if num_others else None
        if owed is not None:
            self._background.charge(owed.expected_s)
            return owed
        batch = self._choose_with_deadline(turn)
        if batch is None:
            return self._background.next_batch(turn) or self._optional.worthless_batch(turn)
        if turn.is_last_lane:
            self._optional.shed_worthless()
        self._background.others_ran(batch.expected_s, turn.now)
        return batch

    def _choose_with_deadline(self, turn: Turn) -> StageBatch | None:
        first = self._mandatory.next_batch(turn)
        # What first answers wait for is taken from those yet to be admitted: better answers must
        # not eat up the time without which the next request would be refused.
        reserve_s = _RESERVED_BATCHES * turn.longest_s
        if first is not None and turn.spare_s <= reserve_s:
            return first
        offer = self._optional.best_offer(turn, self._num_waiting)
        if first is None or offer is None:
            return first if offer is None else offer.batch
        better = offer.batch
        if turn.spare_s < better.expected_s + reserve_s:
            return first
        is_lost_by_waiting = turn.now + first.expected_s + better.expected_s > offer.finish_by
        return better if is_lost_by_waiting or self._should_fill(first) else first

    def _should_fill(self, batch: StageBatch) -> bool:
        """Whether a batch is so small that waiting for others to join it saves time."""
        prices = self._prices[batch.stage.model]
        share_s = prices.share_s(batch.stage.stage_index, len(batch.members), sum(batch.classify))
        return batch.expected_s > _FULL_ENOUGH * share_s
