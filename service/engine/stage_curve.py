"""What is known of one stage: how its time grows with the batch, and by how much it overruns."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

_NEARLY: Final = 1.15  # times the least time per image
# What a batch costs besides: choosing it, telling a process to run it, handing on what it left.
_ENGINE_S: Final = 0.0005

_RECENT: Final = 128  # batches of one stage, from which its p99 is read
_UNSEEN_OVERRUN: Final = 2.0  # p99 ÷ expected of a stage that has not run yet


class Curve:
    """Seconds at the buckets and, for a quick look, at every batch size in between. Mutable.

    Args:
        buckets: Rising, from 1.
        seconds: At each of them.
    """

    __slots__ = ("_seconds", "buckets", "by_size")

    def __init__(self, buckets: Sequence[int], seconds: Sequence[float]) -> None:
        self.buckets = buckets
        self._seconds = list(seconds)
        self.by_size = [0.0] * (buckets[-1] + 1)  # nothing for no images
        for bucket in range(len(buckets)):
            self._fill(bucket)

    def set(self, bucket: int, seconds: float) -> None:
        """Replace the seconds of one bucket, by its index."""
        self._seconds[bucket] = seconds
        self._fill(bucket)
        if bucket + 1 < len(self.buckets):
            self._fill(bucket + 1)

    def scale(self, size: int, step: float) -> None:
        """Move the buckets around a size by a part of themselves, each by its share."""
        upper = bisect_left(self.buckets, size)
        above = self.buckets[upper]
        below = self.buckets[upper - 1] if upper else 0
        upper_share = (size - below) / (above - below)
        if upper_share < 1.0 and upper:
            self.set(upper - 1, self._seconds[upper - 1] * (1.0 + step * (1.0 - upper_share)))
        self.set(upper, self._seconds[upper] * (1.0 + step * upper_share))

    def _fill(self, upper: int) -> None:
        """Interpolate the sizes up to a bucket, from the bucket before it."""
        above, above_s = self.buckets[upper], self._seconds[upper]
        if upper:
            below, below_s = self.buckets[upper - 1], self._seconds[upper - 1]
            slope_s = (above_s - below_s) / (above - below)
            for size in range(below + 1, above):
                self.by_size[size] = below_s + slope_s * (size - below)
        self.by_size[above] = above_s


class StageEstimate:
    """What is known of one stage, in seconds. Mutable; owned by its `StageCosts`.

    Attributes:
        trunk: Of a batch without its classifier.
        classifier: What that adds, for the images it looks at.
        best_batch: The smallest bucket that is nearly the quickest per image; the largest until
            `find_best_batch`.
    """

    __slots__ = ("_next_overrun", "_overruns", "best_batch", "classifier", "trunk")

    def __init__(self, trunk: Curve, classifier: Curve) -> None:
        self.trunk = trunk
        self.classifier = classifier
        self.best_batch = trunk.buckets[-1]
        self._overruns: list[float] = []  # seconds ÷ expected seconds, a ring once it is full
        self._next_overrun = 0

    def at(self, size: int, num_classified: int) -> float:
        """Return the seconds of a batch; more than the largest bucket runs in several."""
        try:
            return self.trunk.by_size[size] + self.classifier.by_size[num_classified]
        except IndexError:
            largest = len(self.trunk.by_size) - 1
            first_s = self.at(largest, min(num_classified, largest))
            return first_s + self.at(size - largest, max(num_classified - largest, 0))

    def find_best_batch(self) -> None:
        """Choose the smallest bucket that is nearly as quick per image as the quickest, for now.

        Whoever is in a batch waits for all of it, and beside a busy event loop twice as long as
        was profiled: larger batches save less than their delay costs. Nearly, so that the noise of
        a measurement does not decide it.
        """
        shares_s = [(_ENGINE_S + self.at(size, size)) / size for size in self.trunk.buckets]
        enough_s = _NEARLY * min(shares_s)
        self.best_batch = next(
            size
            for size, share_s in zip(self.trunk.buckets, shares_s, strict=True)
            if share_s <= enough_s
        )

    def note_overrun(self, overrun: float) -> None:
        """Remember how a batch compared with what was expected of it."""
        if len(self._overruns) < _RECENT:
            self._overruns.append(overrun)
            return
        self._overruns[self._next_overrun % _RECENT] = overrun
        self._next_overrun += 1

    @property
    def p99_overrun(self) -> float:
        """The 99th percentile of what is remembered, 1 at least."""
        recent = sorted(self._overruns)
        if not recent:
            return _UNSEEN_OVERRUN
        return max(1.0, recent[(99 * len(recent) + 99) // 100 - 1])
