"""How long a stage takes at a batch size: profiled at warm-up, then learnt from what ran."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.backends.base import ModelKey, StageKey

# One observation moves an estimate by at most a tenth of itself: what a pause of the machine or a
# first run with cold memory takes says little about the next one.
_LEARNING_RATE: Final = 0.1
_MAX_SURPRISE: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Between:
    """Between which buckets a batch size lies."""

    lower: int
    upper: int
    upper_share: float  # 0 where the size is the lower bucket itself


class _Curve:
    """Seconds at the buckets, for any batch size. Mutable; owned by its `StageCosts`.

    Args:
        between: By batch size, from 0 (which is never asked for) to the largest.
        seconds: At each bucket.
    """

    __slots__ = ("_between", "seconds")

    def __init__(self, between: Sequence[_Between], seconds: list[float]) -> None:
        self._between = between
        self.seconds = seconds

    def at(self, size: int) -> float:
        """Return the seconds for some images, at least one."""
        if size >= len(self._between):
            num_full, rest = divmod(size, len(self._between) - 1)
            return num_full * self.seconds[-1] + (self.at(rest) if rest else 0.0)
        place = self._between[size]
        lower_s = self.seconds[place.lower]
        return lower_s + place.upper_share * (self.seconds[place.upper] - lower_s)

    def scale(self, size: int, step: float) -> None:
        """Move the buckets around a size by a part of themselves, each by its share."""
        place = self._between[size]
        self.seconds[place.lower] *= 1.0 + step * (1.0 - place.upper_share)
        self.seconds[place.upper] *= 1.0 + step * place.upper_share


@dataclass(frozen=True, slots=True)
class _Stage:
    """What is known of one stage."""

    trunk: _Curve
    classifier: _Curve

    def at(self, size: int, num_classified: int) -> float:
        """Return the seconds of a batch."""
        trunk_s = self.trunk.at(size)
        return trunk_s + self.classifier.at(num_classified) if num_classified else trunk_s


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
        self._between = tuple(_place(self.buckets, size) for size in range(max_batch + 1))
        self._models: dict[ModelKey, dict[int, _Stage]] = {}

    def profile(
        self, stage: StageKey, batch_size: int, *, trunk_s: float, classifier_s: float
    ) -> None:
        """Set what a stage was measured to take at one bucket.

        Raises:
            ValueError: `batch_size` is no bucket.
        """
        bucket = self.buckets.index(batch_size)
        stages = self._stages(stage.model)
        if stage.stage_index not in stages:
            unknown = [0.0] * len(self.buckets)
            stages[stage.stage_index] = self._stage(unknown, unknown)
        known = stages[stage.stage_index]
        known.trunk.seconds[bucket] = trunk_s
        known.classifier.seconds[bucket] = classifier_s

    def expected_s(self, stage: StageKey, batch_size: int, num_classified: int) -> float:
        """Return the seconds a stage is expected to take.

        Args:
            stage: Which.
            batch_size: Images, at least one; more than the largest batch run in several.
            num_classified: How many of them the classifier also looks at.
        """
        known = self._stages(stage.model).get(stage.stage_index)
        return 0.0 if known is None else known.at(batch_size, num_classified)

    def observe(
        self, stage: StageKey, batch_size: int, num_classified: int, elapsed_s: float
    ) -> None:
        """Learn from a batch that ran; trunk and classifier share the surprise by their parts."""
        stages = self._stages(stage.model)
        known = stages.get(stage.stage_index)
        expected_s = 0.0 if known is None else known.at(batch_size, num_classified)
        if known is None or expected_s <= 0.0:
            # Larger batches in proportion, smaller ones no faster: the cautious end of both.
            guess = [elapsed_s * max(1.0, size / batch_size) for size in self.buckets]
            stages[stage.stage_index] = self._stage(guess, [0.0] * len(self.buckets))
            return
        surprise = min(max(elapsed_s / expected_s, 1.0 / _MAX_SURPRISE), _MAX_SURPRISE) - 1.0
        trunk_part = known.trunk.at(batch_size) / expected_s
        known.trunk.scale(batch_size, _LEARNING_RATE * surprise * trunk_part)
        if num_classified:
            known.classifier.scale(num_classified, _LEARNING_RATE * surprise * (1.0 - trunk_part))

    def times(self, model: ModelKey) -> "ModelTimes":
        """Return the part about one model, as exit policies ask for it."""
        return ModelTimes(self, self._stages(model))

    def _stages(self, model: ModelKey) -> dict[int, _Stage]:
        return self._models.setdefault(model, {})

    def _stage(self, trunk_s: Sequence[float], classifier_s: Sequence[float]) -> _Stage:
        return _Stage(
            _Curve(self._between, list(trunk_s)), _Curve(self._between, list(classifier_s))
        )


@dataclass(frozen=True, slots=True)
class ModelTimes:
    """Expected seconds of the stages of one model; always those of the present moment."""

    stage_costs: StageCosts
    stages: Mapping[int, _Stage]  # by stage index, as `StageCosts` goes on learning them

    def stage_s(self, stage_index: int, batch_size: int = 1, *, num_classified: int) -> float:
        """Return the seconds of one stage; more than the largest batch run in several."""
        known = self.stages.get(stage_index)
        return 0.0 if known is None else known.at(batch_size, num_classified)

    def straight_s(self, first_stage: int, exit_index: int, batch_size: int = 1) -> float:
        """Return the seconds from before a stage to an exit, with no classifier on the way.

        0 where the exit lies before the stage.
        """
        if exit_index < first_stage:
            return 0.0
        trunks_s = sum(
            self.stage_s(index, batch_size, num_classified=0)
            for index in range(first_stage, exit_index)
        )
        return trunks_s + self.stage_s(exit_index, batch_size, num_classified=batch_size)


def _place(buckets: Sequence[int], size: int) -> _Between:
    upper = bisect_left(buckets, size)
    if upper == 0 or buckets[upper] == size:
        return _Between(upper, upper, 0.0)
    below, above = buckets[upper - 1], buckets[upper]
    return _Between(upper - 1, upper, (size - below) / (above - below))
