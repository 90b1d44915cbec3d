"""Who may enter: a ledger of what is in flight, and of the work still owed to it.

Owed is the way to the first exit that may answer; whatever runs deeper can be given up. Pure: no
clock, no lock; `InFlight` holds one, since the event loop asks and the lanes discharge.
"""

import math
from bisect import bisect_left, insort
from dataclasses import dataclass

from service.engine.request import EngineLimits, ServedModel, Terms
from service.engine.stage_costs import ModelTimes
from service.errors import DeadlineInfeasible, Overloaded


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody wants to take in, in the units of the ledger."""

    num_images: int  # that are owed an exit
    num_at_once: int  # of them, in flight at once
    feature_bytes: int  # of those
    stage_shares_s: tuple[float, ...]  # per image and stage up to that exit, in full batches
    full_depth_s: float  # all images to the last exit, in full batches
    alone_s: float  # all images to that exit on an idle machine
    due_at: float  # for ordering alone
    answer_by: float | None  # the deadline less its margin

    @property
    def owed_s(self) -> float:
        """Expected work until all its images have an answer."""
        return self.num_images * sum(self.stage_shares_s)


def claim_for(terms: Terms, model: ServedModel, times: ModelTimes, *, margin_s: float) -> Claim:
    """Price what somebody wants to take in.

    Args:
        terms: Of what.
        model: That it asks for.
        times: What its stages are expected to take.
        margin_s: How long before its deadline it must be answered.

    Raises:
        ValueError: There are no images, or not that many exits.
    """
    size, mandatory_exit = times.stage_costs.max_batch, terms.mandatory_exit
    last_exit = model.costs.num_exits - 1
    if terms.num_images < 1 or not 0 <= mandatory_exit <= last_exit:
        raise ValueError(f"{terms.num_images} images to exit {mandatory_exit} of {last_exit}")
    num_at_once = terms.num_images if terms.num_at_once is None else terms.num_at_once
    return Claim(
        num_images=terms.num_images,
        num_at_once=num_at_once,
        feature_bytes=num_at_once * model.border_bytes,
        stage_shares_s=tuple(
            times.stage_s(index, size, num_classified=size * (index == mandatory_exit)) / size
            for index in range(mandatory_exit + 1)
        ),
        full_depth_s=terms.num_images * times.straight_s(0, last_exit, size) / size,
        alone_s=times.straight_s(0, mandatory_exit, terms.num_images),
        due_at=terms.due_at,
        answer_by=None if terms.deadline_at is None else terms.deadline_at - margin_s,
    )


class Charge:
    """What was admitted, and how much is still owed to it. Mutable; owned by the ledger."""

    __slots__ = ("claim", "is_released", "order", "owed_s")

    def __init__(self, claim: Claim, order: int) -> None:
        self.claim = claim
        self.order = order  # of admission, tells apart what is due at once
        self.owed_s = claim.owed_s
        self.is_released = False

    def slack_s(self, start_at: float) -> float:
        """Return how much later than an instant its work could begin."""
        if self.claim.answer_by is None or self.owed_s <= 0.0:
            return math.inf
        part_left = self.owed_s / self.claim.owed_s
        return self.claim.answer_by - start_at - part_left * self.claim.alone_s


class AdmissionLedger:
    """Counts images, bytes and owed seconds of all that is in flight. Mutable; see `InFlight`.

    A newcomer with a deadline must reach its first exit behind all that is due before it, and must
    not make anybody due after it miss one that he would have kept. Without deadline only numbers
    and bytes are bounded.

    Args:
        limits: How much may be in flight.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._charges: list[tuple[float, int, Charge]] = []  # by due, then order of admission
        self._num_admitted = 0
        self._num_with_deadline = 0
        self.num_in_flight = 0
        self.feature_bytes = 0
        self.full_depth_s = 0.0
        self._busy_until = -math.inf

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in flight."""
        return not self._charges

    @property
    def owed_s(self) -> float:
        """Expected seconds until everybody in flight has an answer."""
        return sum(charge.owed_s for _, _, charge in self._charges)

    def check(self, claim: Claim, now: float) -> None:
        """Say whether a claim could be admitted.

        Raises:
            DeadlineInfeasible: Not even an idle machine reaches the exit in time.
            Overloaded: There is no room, or no time, at present.
            ValueError: It is larger than all there is, so that waiting would not help.
        """
        self._check_size(claim)
        if claim.answer_by is not None and now + claim.alone_s > claim.answer_by:
            raise DeadlineInfeasible(minimum_s=self._limits.least_deadline_s(claim.alone_s))
        if (
            self.num_in_flight + claim.num_at_once > self._limits.max_in_flight
            or self.feature_bytes + claim.feature_bytes > self._limits.max_feature_bytes
        ):
            raise Overloaded(retry_after_s=self.retry_after_s(now))
        if claim.answer_by is not None:
            self._check_time(claim, now)

    def admit(self, claim: Claim) -> Charge:
        """Charge a claim that was checked."""
        charge = Charge(claim, self._num_admitted)
        insort(self._charges, (claim.due_at, charge.order, charge))
        self._num_admitted += 1
        self._num_with_deadline += claim.answer_by is not None
        self.num_in_flight += claim.num_at_once
        self.feature_bytes += claim.feature_bytes
        self.full_depth_s += claim.full_depth_s
        return charge

    def stage_ran(self, charge: Charge, stage_index: int, num_images: int) -> None:
        """Discharge a stage of some images; beyond the first exit nothing is owed."""
        if stage_index < len(charge.claim.stage_shares_s):
            done_s = num_images * charge.claim.stage_shares_s[stage_index]
            charge.owed_s = max(0.0, charge.owed_s - done_s)

    def release(self, charge: Charge) -> None:
        """Discharge all of a claim; a second time does nothing."""
        if charge.is_released:
            return
        charge.is_released = True
        del self._charges[bisect_left(self._charges, (charge.claim.due_at, charge.order))]
        self._num_with_deadline -= charge.claim.answer_by is not None
        self.num_in_flight -= charge.claim.num_at_once
        self.feature_bytes -= charge.claim.feature_bytes
        # Floats added and taken away in another order do not return to 0 by themselves.
        rest_s = self.full_depth_s - charge.claim.full_depth_s
        self.full_depth_s = max(0.0, rest_s) if self._charges else 0.0

    def batch_began(self, ends_at: float) -> None:
        """Note until when the lane is expected to be busy."""
        self._busy_until = ends_at

    def batch_ended(self) -> None:
        """Note that the lane is free."""
        self._busy_until = -math.inf

    def spare_s(self, now: float) -> float:
        """Return for how long other work may run before somebody misses his first exit."""
        if not self._num_with_deadline:
            return math.inf
        start_at = max(now, self._busy_until)
        spare_s = math.inf
        for _, _, charge in self._charges:
            spare_s = min(spare_s, charge.slack_s(start_at))
            start_at += charge.owed_s
        return spare_s

    def retry_after_s(self, now: float) -> float:
        """Return when the present backlog should be gone, if all of it ran to the last exit."""
        return max(0.0, self._busy_until - now) + self.full_depth_s

    def _check_size(self, claim: Claim) -> None:
        limits = self._limits
        if (
            claim.num_at_once > limits.max_in_flight
            or claim.feature_bytes > limits.max_feature_bytes
        ):
            raise ValueError(
                f"{claim.num_at_once} images with {claim.feature_bytes} bytes of features exceed "
                f"the limits of {limits.max_in_flight} and {limits.max_feature_bytes}: use windows"
            )

    def _check_time(self, claim: Claim, now: float) -> None:
        start_at = max(now, self._busy_until)
        missing_s = 0.0
        newcomer = Charge(claim, self._num_admitted)
        is_in = False
        for due_at, _, charge in self._charges:
            if not is_in and claim.due_at < due_at:
                is_in = True
                missing_s = max(missing_s, -newcomer.slack_s(start_at))
            slack_s = charge.slack_s(start_at)
            # Who is late already is not made later by the refusal of others.
            if is_in and 0.0 <= slack_s < newcomer.owed_s:
                missing_s = max(missing_s, newcomer.owed_s - slack_s)
            start_at += charge.owed_s
        if not is_in:
            missing_s = max(missing_s, -newcomer.slack_s(start_at))
        if missing_s > 0.0:
            raise Overloaded(retry_after_s=missing_s)
