"""Admission in a front end: the engine's own test on what the engine shows, and no round trip.

What passes here is tested again by the engine when it gets there, and that counts. So nothing here
need be exact; it must only refuse at once what the engine would refuse, and let in the rest.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from service.backends.base import ModelKey
from service.engine.fitting import OwedLater, missing_s
from service.engine.margin import AnswerMargin
from service.engine.pricing import Claim, PriceList
from service.engine.request import EngineLimits, ServedModel, Terms
from service.engine.stage_costs import StageCosts
from service.errors import DeadlineInfeasible, NotReady, Overloaded
from service.frontends.board import Board, LedgerView, Pending, PublishedBucket

_US: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Place:
    """This front end's place on a board."""

    board: Board
    front_end: int
    num_front_ends: int


@dataclass(frozen=True, slots=True)
class _Sent:
    number: int  # of this front end's requests so far, itself included
    pending: Pending


class EarlyAdmission:
    """Tests and charges for one front end. Mutable; belongs to its event loop.

    Args:
        models: Everything that may be asked for.
        stage_costs: What stages take, kept up to date by `RemoteEngine`.
        margin: Likewise.
        limits: How much may be in flight.
    """

    def __init__(
        self,
        models: Mapping[ModelKey, ServedModel],
        *,
        stage_costs: StageCosts,
        margin: AnswerMargin,
        limits: EngineLimits,
    ) -> None:
        self._models = models
        self._stage_costs = stage_costs
        self._margin = margin
        self._limits = limits
        self._place: Place | None = None
        self._prices: dict[ModelKey, PriceList] = {}
        self._sent: deque[_Sent] = deque()
        self._num_sent = 0
        self._own = Pending()  # of all in `_sent`

    def connect(self, place: Place | None) -> None:
        """Look at another engine's board, on which nothing is charged yet; None: at none."""
        self._place = place
        self._prices.clear()
        self._sent.clear()
        self._own = Pending()
        self._num_sent = 0

    def claim(self, terms: Terms, now: float) -> Claim:
        """Return what terms come to.

        Raises:
            NotReady: There is no engine.
            ValueError: There are no images, or not that many exits.
        """
        prices = self._prices.get(terms.model)
        if prices is None:
            prices = self._prices[terms.model] = PriceList(
                self._models[terms.model],
                self._stage_costs.times(terms.model),
                self._margin,
                num_lanes=len(self._view().busy_until),
            )
        return prices.claim(terms, now)

    def check(self, claim: Claim, now: float) -> None:
        """Say whether a claim could be admitted; raises what `AdmissionLedger.check` does."""
        if claim.answer_by is not None and now + claim.alone_s > claim.answer_by:
            raise DeadlineInfeasible(minimum_s=self._margin.least_deadline_s(claim.alone_s))
        view, pending = self._view(), self.pending()
        if not self._has_room(claim, view, pending):
            raise Overloaded(retry_after_s=self.retry_after_s(now))
        if claim.answer_by is None:
            return
        missing = missing_s(
            _ViewedDemand(view, pending, now),
            claim,
            claim.answer_by,
            free_at(view, now),
            stretch=view.stretch,
        )
        if missing > 0.0:
            raise Overloaded(retry_after_s=missing)

    def charge_sent(self, claim: Claim | None) -> None:
        """Count what goes to the engine now, until that counts it; None: it was counted before."""
        self._num_sent += 1
        if claim is None:
            return
        is_background = claim.answer_by is None
        pending = Pending(
            claim.num_at_once,
            claim.num_at_once if is_background else 0,
            claim.feature_bytes,
            0 if is_background else claim.owed_us,
        )
        self._sent.append(_Sent(self._num_sent, pending))
        self._own = self._own.plus(pending)
        place = self._need_place()
        self._forget_taken(place)
        place.board.put_cell(place.front_end, self._num_sent, self._own)

    def pending(self) -> Pending:
        """Return what all front ends have let in and the engine has not counted."""
        place = self._need_place()
        self._forget_taken(place)
        return self._own.plus(place.board.pending_of_others(place.front_end, place.num_front_ends))

    def num_lanes(self) -> int:
        """Return how many batches run side by side."""
        return len(self._view().busy_until)

    def num_in_flight(self) -> int:
        """Return how many images are in flight, as far as is known here."""
        if self._place is None:
            return 0
        return self._view().num_in_flight + self.pending().num_images

    def backlog_s(self, now: float) -> float:
        """Return when a lane would be free for somebody who is due after all the others."""
        view = self._view()
        lanes = free_at(view, now)
        owed_us = (view.owed_us + self.pending().owed_us) * view.stretch
        return sum(lanes) / len(lanes) - now + owed_us * _US / len(lanes)

    def retry_after_s(self, now: float) -> float:
        """Return when the present backlog should be gone, if all of it ran to the last exit."""
        view = self._view()
        lanes = free_at(view, now)
        return max(lanes) - now + view.full_depth_us * _US / len(lanes)

    def _has_room(self, claim: Claim, view: LedgerView, pending: Pending) -> bool:
        limits, num_images = self._limits, claim.num_at_once
        if view.num_in_flight + pending.num_images + num_images > limits.max_in_flight:
            return False
        num_background = view.num_background + pending.num_background + num_images
        if claim.answer_by is None and num_background > limits.max_background:
            return False
        held_bytes = view.feature_bytes + pending.feature_bytes
        return held_bytes + claim.feature_bytes <= limits.max_feature_bytes

    def _forget_taken(self, place: Place) -> None:
        taken = self._view().taken[place.front_end]
        while self._sent and self._sent[0].number <= taken:
            self._own = self._own.minus(self._sent.popleft().pending)

    def _need_place(self) -> Place:
        if self._place is None:
            raise NotReady
        return self._place

    def _view(self) -> LedgerView:
        view = self._need_place().board.ledger()
        if view is None:
            raise NotReady
        return view


class _ViewedDemand:
    """The engine's demand as shown, and before it all that is pending."""

    def __init__(self, view: LedgerView, pending: Pending, now: float) -> None:
        first = PublishedBucket((now,), math.inf, pending.owed_us, pending.owed_us)
        self._buckets = (first, *view.buckets)
        self.owed_us = view.owed_us + pending.owed_us

    def latest_first(self) -> Iterator[OwedLater]:
        """Return the buckets, the last deadline first."""
        return reversed(self._buckets)


def free_at(view: LedgerView, now: float) -> list[float]:
    """Return when each lane should be free, rising."""
    return sorted(max(now, until) for until in view.busy_until)
