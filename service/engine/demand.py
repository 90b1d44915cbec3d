"""Work that deadlines need done, by deadline, and the lanes that will do it. Pure.

Microseconds are added up per millisecond of deadline, so that a thousand requests in flight are
looked at as the few dozen instants by which they want their answers.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, TypeAlias

from service.engine.pricing import Claim

_US: Final = 1e-6
_PER_S: Final = 1000  # buckets in a second

_Key: TypeAlias = tuple[float, int]  # an instant, and which of those that have one of their own


class Bucket:
    """Requests that want their answers at about the same time. Mutable; owned by `Demand`.

    Attributes:
        key: By which it is ordered.
        owed_us: Work they still need until each has an answer.
        before_last_us: As much of it as may come before the last of them starts.
        start_by: The instant by which that one must start to keep its deadline.
        num_charges: How many there are.
    """

    __slots__ = (
        "_alone_s",
        "_answer_by",
        "_claimed_us",
        "_own_us",
        "before_last_us",
        "key",
        "num_charges",
        "owed_us",
        "start_by",
    )

    def __init__(self, key: _Key, *, is_shared: bool) -> None:
        self.key = key
        self.owed_us = 0
        self.before_last_us = 0
        self.start_by = math.inf
        self.num_charges = 0
        self._answer_by = math.inf
        self._alone_s = 0.0
        self._own_us = 0  # of that work, what the last of them to start does itself
        self._claimed_us = 0 if is_shared else 1  # of many images

    def take_in(self, claim: Claim, answer_by: float) -> None:
        """Add a request."""
        self.num_charges += 1
        self._own_us = max(self._own_us, claim.owed_us)
        if answer_by - claim.alone_s < self.start_by:
            self._answer_by, self._alone_s = answer_by, claim.alone_s
            self.start_by = answer_by - claim.alone_s
        if self._claimed_us:
            self._claimed_us = max(1, claim.owed_us)
        self.owe(claim.owed_us)

    def owe(self, work_us: int) -> None:
        """Add work; less than none where some was done."""
        self.owed_us += work_us
        self.before_last_us = max(0, self.owed_us - self._own_us)
        if self._claimed_us:  # some of many images have their answers: the rest is quicker
            part_left = self.owed_us / self._claimed_us
            self.start_by = self._answer_by - self._alone_s * part_left


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


class Demand:
    """All owed work by deadline. Mutable; guarded by the engine's lock."""

    def __init__(self) -> None:
        self._keys: list[_Key] = []
        self._buckets: dict[_Key, Bucket] = {}
        self._num_added = 0
        self.owed_us = 0

    def add(self, claim: Claim, answer_by: float) -> Bucket:
        """Count what a request is owed; many images have a bucket of their own."""
        self._num_added += 1
        is_shared = claim.num_images == 1
        key = (
            (math.floor(answer_by * _PER_S) / _PER_S, 0)
            if is_shared
            else (answer_by, self._num_added)
        )
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(key, is_shared=is_shared)
            if self._keys and key < self._keys[-1]:
                insort(self._keys, key)
            else:
                self._keys.append(key)
        bucket.take_in(claim, answer_by)
        self.owed_us += claim.owed_us
        return bucket

    def discharge(self, bucket: Bucket, done_us: int) -> None:
        """Take away work that was begun or will not be."""
        bucket.owe(-done_us)
        self.owed_us -= done_us

    def remove(self, bucket: Bucket, owed_us: int) -> None:
        """Take away a request, with what it was still owed."""
        self.discharge(bucket, owed_us)
        bucket.num_charges -= 1
        if not bucket.num_charges:
            del self._buckets[bucket.key]
            del self._keys[bisect_left(self._keys, bucket.key)]

    def latest_first(self) -> Iterator[Bucket]:
        """Return the buckets, the last deadline first."""
        return (self._buckets[key] for key in reversed(self._keys))

    def earliest_first(self) -> Iterator[Bucket]:
        """Return the buckets with work left, the first deadline first."""
        return (bucket for key in self._keys if (bucket := self._buckets[key]).owed_us)


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
