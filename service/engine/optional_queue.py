"""Better answers: the stages that may be run or left, in the order of expected gain per second.

Images without anything to gain wait apart and run when nothing else does.
"""

import math
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final, TypeAlias

from model_store.gains import GainTable
from service.backends.base import ModelKey, StageKey
from service.engine.due_queue import StageQueues, is_lone
from service.engine.member import Member
from service.engine.optional_offer import HANDLING_S, Offer, Shortlist
from service.engine.stage_batch import EarliestFirst, StageBatch, Turn
from service.engine.stage_worth import Candidate, StageWorth

_SEARCHED: Final = 4  # times a batch is looked through for those of one source
_MAX_STALE: Final = 16

_Expiry: TypeAlias = tuple[float, int, Member]  # last instant to begin, ticket, who


class OptionalQueue:
    """Images with a deadline and an answer. Mutable; owned by the scheduler.

    Args:
        earliest_first: What stages cost, and how batches are made of those who gain nothing.
        gains: What deeper exits should bring, by model.
    """

    def __init__(
        self,
        earliest_first: EarliestFirst,
        gains: Mapping[ModelKey, GainTable],
    ) -> None:
        self._earliest_first = earliest_first
        self._stage_costs = earliest_first.stage_costs
        self._prices = earliest_first.prices
        self._can_join = earliest_first.can_join
        self._gains = gains
        self._by_stage: dict[StageKey, StageWorth] = {}
        self._worthless = StageQueues()
        self._expiries: list[_Expiry] = []
        self._lost: list[Member] = []
        self.least_worth = 0.0  # per second; single requests worth less do not wait at all

    def add(self, member: Member, now: float, ticket: int) -> bool:
        """Let an image wait.

        Returns:
            False where no exit is left that it gets to in time; it waits nowhere then.
        """
        worth = self._worth(member.stage)
        if not self._place(worth, member, now, ticket):
            return False
        if member.ticket == ticket:
            stage_index = member.stage.stage_index
            way_s = worth.prices.alone_s[stage_index][worth.first_exit(member)]
            heappush(self._expiries, (member.answer_by - way_s, ticket, member))
        return True

    def depth(self, stage: StageKey) -> int:
        """Return how many images wait for a stage."""
        worth = self._by_stage.get(stage)
        return self._worthless.depth(stage) + (0 if worth is None else worth.num_waiting)

    def next_expiry_at(self) -> float | None:
        """Return when, at the latest, `take_expired` has somebody to take; None where never."""
        self._drop_stale_expiries()
        return math.nextafter(self._expiries[0][0], math.inf) if self._expiries else None

    def take_expired(self, now: float) -> list[Member]:
        """Let those wait no longer who get to no exit in time."""
        expired = []
        self._drop_stale_expiries()
        while self._expiries and self._expiries[0][0] < now:
            _, _, member = heappop(self._expiries)
            if member.place is not None:
                member.place.forget(member)
            expired.append(member)
            self._drop_stale_expiries()
        return expired

    def take_lost(self) -> list[Member]:
        """Return who waits no longer, since the last look found him no exit, or nothing to gain.

        They were not yet expired by the prices at which they came.
        """
        lost, self._lost = self._lost, []
        return lost

    def sweep(self, num_waiting: int) -> None:
        """Drop what is remembered of those who left, if they outnumber those who wait."""
        if len(self._expiries) > 2 * num_waiting + _MAX_STALE:
            self._expiries = [entry for entry in self._expiries if entry[2].ticket == entry[1]]
            heapify(self._expiries)

    def best_offer(self, turn: Turn, num_waiting: int) -> Offer | None:
        """Return the batch that gains most per second, of those who have something to gain.

        Args:
            turn: The lane's.
            num_waiting: Images that wait for anything at all.
        """
        tops = [(worth.most_gain_rate(HANDLING_S), worth) for worth in self._by_stage.values()]
        best: Offer | None = None
        for most, worth in sorted(tops, key=_by_most, reverse=True):
            if most <= 0.0 or (best is not None and best.gain_rate >= most):
                break
            offer = self._offer(worth, turn, num_waiting)
            if offer is not None and (best is None or offer.gain_rate > best.gain_rate):
                best = offer
        return best

    def worthless_batch(self, turn: Turn) -> StageBatch | None:
        """Return a batch of those who are not expected to gain anything, earliest due first."""
        return self._earliest_first.batch(self._worthless, turn, turn.limit_s)

    def shed_worthless(self) -> None:
        """Let single requests that gain nothing stand where they stand; see `take_lost`."""
        for member in self._worthless.take(is_lone):
            member.ticket = 0
            self._lost.append(member)

    def _worth(self, stage: StageKey) -> StageWorth:
        worth = self._by_stage.get(stage)
        if worth is None:
            prices, gains = self._prices[stage.model], self._gains[stage.model]
            worth = self._by_stage[stage] = StageWorth(stage.stage_index, prices, gains)
        return worth

    def _place(self, worth: StageWorth, member: Member, now: float, ticket: int) -> bool:
        reach = worth.reach(member, now)
        if reach is None:
            return False
        bucket = worth.bucket_of(member, reach)
        if bucket is None:
            self._worthless.add(member, member.answer_by, ticket)
        elif bucket.worth < self.least_worth and is_lone(member):
            member.ticket = 0
            self._lost.append(member)
        else:
            worth.add(member, bucket, ticket)
        return True

    def _offer(self, worth: StageWorth, turn: Turn, num_waiting: int) -> Offer | None:
        size = min(turn.max_size, worth.best_batch)
        shortlist = self._shortlist(worth, turn.now, size, num_waiting)
        if shortlist is None:
            return None
        if not shortlist.is_in_time(self._stage_costs):
            # Others may take the places of those too near their deadlines for a full batch.
            longer = self._shortlist(worth, turn.now, 2 * size, num_waiting)
            shortlist = shortlist if longer is None else longer
        return shortlist.best_offer(self._stage_costs, turn, size)

    def _shortlist(
        self, worth: StageWorth, now: float, length: int, num_waiting: int
    ) -> Shortlist | None:
        if self._can_join:
            candidates = self._candidates(worth, now, length)
        else:
            # A window's images have one source and lie in several buckets, others between them.
            candidates = self._candidates(worth, now, _SEARCHED * length)
            candidates = [one for one in candidates if one[0].source == candidates[0][0].source]
        if not candidates:
            return None
        has_rivals = num_waiting > min(worth.best_batch, len(candidates))
        return Shortlist(candidates, worth.prices, now, has_rivals=has_rivals)

    def _candidates(self, worth: StageWorth, now: float, limit: int) -> list[Candidate]:
        """Find whom it is worth looking at; whose target is out of reach is given another."""
        found, stranded = worth.look(now, limit)
        while stranded:
            for member in stranded:
                if not self._place(worth, member, now, member.ticket):
                    member.ticket = 0
                    self._lost.append(member)
            found, stranded = worth.look(now, limit)
        return found

    def _drop_stale_expiries(self) -> None:
        while self._expiries and self._expiries[0][2].ticket != self._expiries[0][1]:
            heappop(self._expiries)


def _by_most(top: tuple[float, StageWorth]) -> float:
    return top[0]
