"""How long a stage takes at a batch size: profiled at warm-up, then learnt from what ran."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from service.backends.base import ModelKey, StageKey

# One observation moves an estimate by at most a tenth of itself: what a pause of the machine or a
# first run with cold memory takes says little about the next one.
_LEARNING_RATE: Final = 0.1
_MAX_SURPRISE: Final = 2.0


class StageCosts:
    """Expected seconds of every stage, its trunk and its classifier apart.

    Kept at batch sizes 1, 2, 4, … and the largest, and interpolated between. A stage of which
    nothing is known is expected to take no time, so that it is tried rather than refused.

    Mutable: written to by the lanes, read by anybody. Every number is replaced whole, and a reader
    that sees one new and its neighbour old is as right as one that came a moment earlier.

    Args:
        max_batch: Images of the largest batch; larger ones count as several.

    Raises:
        ValueError: `max_batch` is not positive.
    """

    def __init__(self, *, max_batch: int) -> None:
        if max_batch < 1:
            raise ValueError(f"a batch holds at least one image, not {max_batch}")
        self.max_batch = max_batch
        powers = (1 << exponent for exponent in range(max_batch.bit_length()))
        self.buckets: Final = tuple(sorted({*powers, max_batch}))
        self._shares = tuple(self._bucket_shares(size) for size in range(1, max_batch + 1))
        self._trunks: dict[StageKey, list[float]] = {}
        self._classifiers: dict[StageKey, list[float]] = {}

    def profile(
        self, stage: StageKey, batch_size: int, *, trunk_s: float, classifier_s: float
    ) -> None:
        """Set what a stage was measured to take at one bucket.

        Raises:
            ValueError: `batch_size` is no bucket.
        """
        bucket = self.buckets.index(batch_size)
        for curves, seconds in ((self._trunks, trunk_s), (self._classifiers, classifier_s)):
            curves.setdefault(stage, [0.0] * len(self.buckets))[bucket] = seconds

    def expected_s(self, stage: StageKey, batch_size: int, num_classified: int) -> float:
        """Return the seconds a stage is expected to take.

        Args:
            stage: Which.
            batch_size: Images; more than the largest batch run in several.
            num_classified: How many of them the classifier also looks at.
        """
        trunks = self._trunks.get(stage)
        if trunks is None:
            return 0.0
        return self._at(trunks, batch_size) + self._at(self._classifiers[stage], num_classified)

    def observe(
        self, stage: StageKey, batch_size: int, num_classified: int, elapsed_s: float
    ) -> None:
        """Learn from a batch that ran; trunk and classifier share the surprise by their parts."""
        expected_s = self.expected_s(stage, batch_size, num_classified)
        if expected_s <= 0.0:
            self._guess(stage, batch_size, elapsed_s)
            return
        surprise = min(max(elapsed_s / expected_s, 1.0 / _MAX_SURPRISE), _MAX_SURPRISE) - 1.0
        classifier_part = self._at(self._classifiers[stage], num_classified) / expected_s
        step = _LEARNING_RATE * surprise
        self._scale(self._trunks[stage], batch_size, step * (1.0 - classifier_part))
        if num_classified:
            self._scale(self._classifiers[stage], num_classified, step * classifier_part)

    def times(self, model: ModelKey) -> "ModelTimes":
        """Return the part about one model, as exit policies ask for it."""
        return ModelTimes(model, self)

    def _bucket_shares(self, size: int) -> "_BucketShares":
        upper = bisect_left(self.buckets, size)
        if self.buckets[upper] == size:
            return _BucketShares(upper, upper, 0.0)
        below, above = self.buckets[upper - 1], self.buckets[upper]
        return _BucketShares(upper - 1, upper, (size - below) / (above - below))

    def _at(self, curve: list[float], size: int) -> float:
        if size <= self.max_batch:
            return self._within_a_batch(curve, size)
        num_full, rest = divmod(size, self.max_batch)
        return num_full * curve[-1] + self._within_a_batch(curve, rest)

    def _within_a_batch(self, curve: list[float], size: int) -> float:
        if size == 0:
            return 0.0
        shares = self._shares[size - 1]
        lower_s = curve[shares.lower]
        return lower_s + shares.upper_share * (curve[shares.upper] - lower_s)

    def _scale(self, curve: list[float], size: int, step: float) -> None:
        shares = self._shares[size - 1]
        curve[shares.lower] *= 1.0 + step * (1.0 - shares.upper_share)
        curve[shares.upper] *= 1.0 + step * shares.upper_share

    def _guess(self, stage: StageKey, batch_size: int, elapsed_s: float) -> None:
        # Larger batches in proportion, smaller ones no faster: the cautious end of both.
        self._trunks[stage] = [elapsed_s * max(1.0, size / batch_size) for size in self.buckets]
        self._classifiers[stage] = [0.0] * len(self.buckets)


@dataclass(frozen=True, slots=True)
class _BucketShares:
    """Between which buckets a batch size lies."""

    lower: int
    upper: int
    upper_share: float  # 0 where the size is the lower bucket itself


@dataclass(frozen=True, slots=True)
class ModelTimes:
    """Expected seconds of the stages of one model; always those of the present moment."""

    model: ModelKey
    stage_costs: StageCosts

    def stage_s(self, stage_index: int, batch_size: int = 1, *, num_classified: int) -> float:
        """Return the seconds of one stage; more than the largest batch run in several."""
        return self.stage_costs.expected_s(
            StageKey(self.model, stage_index), batch_size, num_classified
        )

    def straight_s(self, first_stage: int, exit_index: int, batch_size: int = 1) -> float:
        """Return the seconds from before a stage to an exit, with no classifier on the way.

        0 where the exit lies before the stage.
        """
        stages = range(first_stage, exit_index + 1)
        return sum(
            self.stage_s(index, batch_size, num_classified=batch_size * (index == exit_index))
            for index in stages
        )
