"""Whether the lanes do what deadlines need in time, and more besides. Pure."""

import math
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from service.engine.demand import Demand
from service.engine.pricing import Claim

_US: Final = 1e-6
_REVIVAL_S: Final = 1.0  # until a process that runs stages is there again


class OwedLater(Protocol):
    """What some requests want by about the same time."""

    @property
    def key(self) -> tuple[float, ...]: ...  # noqa: D102 - the attributes of `Bucket`

    @property
    def owed_us(self) -> int: ...  # noqa: D102

    @property
    def start_by(self) -> float: ...  # noqa: D102

    @property
    def before_last_us(self) -> int: ...  # noqa: D102


class Owed(Protocol):
    """All work owed by deadlines, whoever counted it."""

    @property
    def owed_us(self) -> int:
        """All of it."""
        ...

    def latest_first(self) -> Iterator[OwedLater]:
        """Return it by deadline, the last one first."""
        ...


def free_at(busy_until: float, now: float) -> float:
    """Return when a lane should be free; one that overruns is expected to do so as long again."""
    if busy_until == -math.inf:
        return now
    return max(busy_until, now + now - busy_until)


def lanes_free_at(busy_until: Sequence[float], now: float) -> list[float]:
    """Return when each lane that does not rest should be free, rising; at least one.

    Where all of them rest, what runs their stages is gone and started anew.
    """
    free = sorted(free_at(until, now) for until in busy_until if until != math.inf)
    return free or [now + _REVIVAL_S]


def start_at(free_at: Sequence[float], work_s: float) -> float:
    """Return when the lanes have done so much work that one of them can start on what is next.

    Args:
        free_at: When each lane is free, rising.
        work_s: Of one lane; any lane can do any part of it.
    """
    at = free_at[0]
    for num_free in range(1, len(free_at)):
        until_next_s = (free_at[num_free] - at) * num_free
        if work_s <= until_next_s:
            return at + work_s / num_free
        work_s -= until_next_s
        at = free_at[num_free]
    return at + work_s / len(free_at)


def spare_s(demand: Demand, other_free_at: Sequence[float], now: float, *, stretch: float) -> float:
    """Return for how long a lane may do other work before somebody misses his first answer.

    Args:
        demand: Everybody's.
        other_free_at: When each other lane is free.
        now: The present instant, at which the lane that asks is.
        stretch: How much longer work takes than it says, because others have a share.
    """
    if not demand.owed_us:
        return math.inf
    spare, before_us = math.inf, 0
    for bucket in demand.earliest_first():
        start_by = bucket.start_by
        work_s = (before_us + bucket.before_last_us) * _US * stretch
        before_us += bucket.owed_us
        others_s = 0.0
        for free_at in other_free_at:
            if start_by > free_at:
                others_s += start_by - free_at
        if work_s > others_s or not others_s:
            spare = min(spare, start_by - now - max(0.0, work_s - others_s))
    return spare


def missing_s(
    demand: Owed,
    claim: Claim,
    answer_by: float,
    free_at: Sequence[float],
    *,
    stretch: float,
    cushion_s: float = 0.0,
) -> float:
    """Return by how much a newcomer, or somebody due after him, would miss; 0 where nobody does.

    Args:
        demand: Everybody else's.
        claim: The newcomer's.
        answer_by: When he needs his answers.
        free_at: When each lane is free, rising.
        stretch: How much longer work takes than it says, because others have a share.
        cushion_s: By how much sooner than he needs it he must be expected to be answered, if he has
            to wait for others.
    """
    later, start_by = [], math.inf
    before_us = demand.owed_us
    for bucket in demand.latest_first():
        if bucket.key[0] <= answer_by:
            break
        if bucket.owed_us:
            later.append(bucket)
            before_us -= bucket.owed_us
            start_by = min(start_by, bucket.start_by)
    begins_at = max(claim.ready_at, start_at(free_at, before_us * _US * stretch))
    # He runs with those before him. Let in to the last moment, everybody would be so near his
    # deadline that only small batches kept it, and those are what a backlog cannot afford.
    company_s = min(before_us * _US, max(0.0, claim.batch_s - claim.alone_s))
    missing = begins_at + claim.alone_s + company_s - answer_by
    if before_us:
        missing += cushion_s
    own_s = claim.owed_us * _US * stretch
    if later and start_at(free_at, demand.owed_us * _US * stretch + own_s) > start_by:
        missing = max(missing, _most_delayed_s(later, before_us, own_s, free_at, stretch=stretch))
    return max(0.0, missing)


def _most_delayed_s(
    later: Sequence[OwedLater],
    before_us: int,
    own_s: float,
    free_at: Sequence[float],
    *,
    stretch: float,
) -> float:
    """Return by how much a newcomer makes somebody miss who is due after him; below 0 if nobody.

    Args:
        later: What they are owed, the last of them first.
        before_us: Work due before all of them, without the newcomer's.
        own_s: The newcomer's.
        free_at: When each lane is free, rising.
        stretch: See `missing_s`.
    """
    most_s = -math.inf
    for bucket in reversed(later):
        work_s = (before_us + bucket.before_last_us) * _US * stretch
        late_s = start_at(free_at, work_s + own_s) - bucket.start_by
        # Who is late already is not made later by the refusal of others.
        if late_s > most_s and start_at(free_at, work_s) <= bucket.start_by:
            most_s = late_s
        before_us += bucket.owed_us
    return most_s
