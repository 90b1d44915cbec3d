"""Who may enter: a ledger of what is in flight, and of the work still owed to it.

Owed is the way to the first exit that may answer, where there is a deadline; whatever runs deeper
can be given up. Pure: no clock, no lock; it is asked and told under the engine's.
"""

import heapq
import math
from typing import Final

from service.engine.cushion import Cushion
from service.engine.demand import Bucket, Demand
from service.engine.features import FeatureMeter
from service.engine.fitting import free_at, lanes_free_at, missing_s, spare_s
from service.engine.margin import AnswerMargin
from service.engine.pricing import Claim
from service.engine.recent_deadlines import RecentDeadlines
from service.engine.request import EngineLimits
from service.errors import DeadlineInfeasible, Overloaded

_US: Final = 1e-6
_OPTIONAL_PART: Final = 4  # of the shortest deadline lately, for a batch of optional stages


class Charge:
    """What was admitted, and how much is still owed to it. Mutable; owned by the ledger."""

    __slots__ = ("bucket", "claim", "is_released", "owed_us")

    def __init__(self, claim: Claim, bucket: Bucket | None) -> None:
        self.claim = claim
        self.bucket = bucket  # None without a deadline: nothing is owed by a certain time
        self.owed_us = claim.owed_us if bucket is not None else 0
        self.is_released = False


class AdmissionLedger:
    """Counts images, bytes and owed work of all that is in flight. Mutable; see `EngineCore`.

    A newcomer with a deadline must reach its first exit behind all that is due before it, and must
    not make anybody due after it miss one that he would have kept. Without deadline only numbers
    and bytes are bounded.

    Args:
        limits: How much may be in flight.
        margin: How long before its deadline a request must be answered.
        num_lanes: That run batches side by side.
    """

    def __init__(self, limits: EngineLimits, margin: AnswerMargin, *, num_lanes: int) -> None:
        self._limits = limits
        self._margin = margin
        self.demand = Demand()
        self.busy_until = [-math.inf] * num_lanes
        self._background: list[tuple[float, int, Charge]] = []  # a heap; released ones linger
        self._num_background_added = 0
        self._deadlines = RecentDeadlines()
        self.cushion = Cushion()
        self.full_depth_us = 0
        self.num_charges = 0
        self.num_in_flight = 0
        self.num_background = 0
        self.feature_bytes = 0  # charged for what is in flight
        self.features = FeatureMeter()  # of all there are, whosever they are

    def check(self, claim: Claim, now: float) -> None:
        """Say whether a claim could be admitted.

        Raises:
            DeadlineInfeasible: Not even an idle machine reaches the exit in time.
            Overloaded: There is no room, or no time, at present.
            ValueError: It is larger than all there is, so that waiting would not help.
        """
        self._check_size(claim)
        self._check_alone(claim, now)
        self._check_room(claim, now)
        self._check_time(claim, now)

    def admit(self, claim: Claim, now: float) -> Charge:
        """Check a claim and charge it; raises what `check` does."""
        self.check(claim, now)
        bucket = None
        if claim.answer_by is not None:
            bucket = self.demand.add(claim, claim.answer_by)
            self._deadlines.note(claim.deadline_s, now)
        charge = Charge(claim, bucket)
        if bucket is None:
            self._num_background_added += 1
            heapq.heappush(self._background, (claim.due_at, self._num_background_added, charge))
            self.num_background += claim.num_at_once
        self.num_charges += 1
        self.num_in_flight += claim.num_at_once
        self.feature_bytes += claim.feature_bytes
        self.full_depth_us += claim.full_depth_us
        return charge

    def correct(self, charge: Charge, claim: Claim, now: float) -> None:
        """Judge a charge anew, now that its pixels are there; it keeps its place in the order.

        Raises:
            DeadlineInfeasible: Not even an idle machine reaches the exit in time any more.
            Overloaded: The backlog has grown into its time.
        """
        if charge.bucket is None:
            return
        owed_us, charge.owed_us = charge.owed_us, 0
        self.demand.discharge(charge.bucket, owed_us)
        try:
            self._check_alone(claim, now)
            self._check_time(claim, now)
        finally:
            charge.owed_us = owed_us
            self.demand.discharge(charge.bucket, -owed_us)

    def discharge(self, charge: Charge, first_stage: int, last_stage: int | None = None) -> None:
        """Take away what one image was owed for some stages: they run now, or never will.

        Args:
            charge: Whose.
            first_stage: Index of the first of them.
            last_stage: Of the last; None: as far as anything is owed.
        """
        if charge.bucket is None or charge.is_released:
            return
        shares_us = charge.claim.shares_us
        if first_stage >= len(shares_us):
            return
        done_us = sum(shares_us[first_stage:]) if last_stage is None else shares_us[first_stage]
        charge.owed_us -= done_us
        self.demand.discharge(charge.bucket, done_us)

    def release(self, charge: Charge) -> None:
        """Discharge all of a claim; a second time does nothing."""
        if charge.is_released:
            return
        charge.is_released = True
        claim = charge.claim
        if charge.bucket is not None:
            self.demand.remove(charge.bucket, charge.owed_us)
        else:
            self.num_background -= claim.num_at_once
        self.num_charges -= 1
        self.num_in_flight -= claim.num_at_once
        self.feature_bytes -= claim.feature_bytes
        self.full_depth_us -= claim.full_depth_us

    def batch_began(self, lane: int, ends_at: float) -> None:
        """Note until when a lane is expected to be busy."""
        self.busy_until[lane] = ends_at

    def batch_ended(self, lane: int) -> None:
        """Note that a lane is free."""
        self.busy_until[lane] = -math.inf

    def lane_rests(self, lane: int) -> None:
        """Note that a lane takes nothing until `batch_ended` says it is free."""
        self.busy_until[lane] = math.inf

    @property
    def held_bytes(self) -> int:
        """Bytes that features really hold, also those that only a stage still reads."""
        return self.features.held_bytes

    @property
    def owed_s(self) -> float:
        """Expected work until everybody in flight with a deadline has an answer."""
        return self.demand.owed_us * _US

    def spare_s(self, lane: int, now: float) -> float:
        """Return for how long a lane may do other work before somebody misses his first exit."""
        if not self.demand.owed_us:
            return math.inf
        others = [
            free_at(busy_until, now)
            for other, busy_until in enumerate(self.busy_until)
            if other != lane and busy_until != math.inf
        ]
        return spare_s(self.demand, others, now, stretch=self.stretch(now))

    def backlog_s(self, now: float) -> float:
        """Return when a lane would be free for somebody who is due after all the others."""
        free = lanes_free_at(self.busy_until, now)
        rest_s = sum(free) / len(free) - now
        return rest_s + self.demand.owed_us * _US * self.stretch(now) / len(free)

    def retry_after_s(self, now: float) -> float:
        """Return when the present backlog should be gone, if all of it ran to the last exit."""
        free = lanes_free_at(self.busy_until, now)
        return max(free) - now + self.full_depth_us * _US / len(free)

    def longest_optional_s(self, now: float) -> float:
        """Return how long a batch of optional work may run, for the sake of who may come."""
        return self._deadlines.shortest_s(now) / _OPTIONAL_PART

    def stretch(self, now: float) -> float:
        """Return how much longer deadline work takes while overdue work has its share."""
        background = self._background
        while background and background[0][2].is_released:
            heapq.heappop(background)
        if not background or background[0][0] > now:
            return 1.0
        return 1.0 / (1.0 - self._limits.background_share)

    def _check_size(self, claim: Claim) -> None:
        limits = self._limits
        most = limits.max_in_flight if claim.answer_by is not None else limits.max_background
        if claim.num_at_once > most or claim.feature_bytes > limits.max_feature_bytes:
            raise ValueError(
                f"{claim.num_at_once} images with {claim.feature_bytes} bytes of features exceed "
                f"the limits of {most} and {limits.max_feature_bytes}: use windows"
            )

    def _check_alone(self, claim: Claim, now: float) -> None:
        if claim.answer_by is not None and now + claim.alone_s > claim.answer_by:
            raise DeadlineInfeasible(minimum_s=self._margin.least_deadline_s(claim.alone_s))

    def _check_room(self, claim: Claim, now: float) -> None:
        limits, num_images = self._limits, claim.num_at_once
        is_background = claim.answer_by is None
        if (
            self.num_in_flight + num_images > limits.max_in_flight
            or (is_background and self.num_background + num_images > limits.max_background)
            or max(self.feature_bytes, self.held_bytes) + claim.feature_bytes
            > limits.max_feature_bytes
        ):
            raise Overloaded(retry_after_s=self.retry_after_s(now))

    def _check_time(self, claim: Claim, now: float) -> None:
        if claim.answer_by is None:
            return
        missing = missing_s(
            self.demand,
            claim,
            claim.answer_by,
            lanes_free_at(self.busy_until, now),
            stretch=self.stretch(now),
            cushion_s=self.cushion.part * claim.deadline_s,
        )
        if missing > 0.0:
            raise Overloaded(retry_after_s=missing)
