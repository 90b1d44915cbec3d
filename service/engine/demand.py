"""Work that deadlines need done, by deadline; whether more of it fits is said by `fitting`. Pure.

Microseconds are added up per millisecond of deadline, so that a thousand requests in flight are
looked at as the few dozen instants by which they want their answers.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final, TypeAlias

from service.engine.pricing import Claim

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
