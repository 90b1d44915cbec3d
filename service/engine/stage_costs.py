"""How long a stage takes at a batch size: profiled at warm-up, then learnt from what ran."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from service.backends.base import ModelKey, StageKey
from service.engine.stage_curve import Curve, StageEstimate

# What one batch teaches: part of its surprise goes to its own bucket, and a smaller part, to which
# all stages add, to the machine. Half counts at most, so that one pause moves an estimate by 6 %.
_OWN_RATE: Final = 0.09
_PACE_RATE: Final = 0.03
_MAX_SURPRISE: Final = 0.5


class StageCosts:
    """Expected seconds of every stage, its trunk and its classifier apart.

    Kept at batch sizes 1, 2, 4, … and the largest, and interpolated between. All of it is stretched
    by one pace, which follows what slows the machine as a whole (other lanes, the event loop, a
    neighbour), so that a bucket that has not run lately is not taken for as quick as it once was.
    A stage of which nothing is known is expected to take no time: it is tried, not refused.

    What ran is measured as it is lived through: joining, compaction and waiting for a core count.

    Mutable: written to by the lanes, read by anybody, without a lock. Every number is replaced
    whole, and a reader that sees one new and its neighbour old is as right as one that came a
    moment earlier; of two lanes that learn at once, one may go unheard.

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
        self.pace = 1.0  # how much slower the machine is now than it was when profiled
        self.num_changes = 0  # so that whoever added estimates up knows when to do it again
        self._stages: dict[StageKey, StageEstimate] = {}
        self._times: dict[ModelKey, ModelTimes] = {}

    def profile(
        self, stage: StageKey, batch_size: int, *, trunk_s: float, classifier_s: float
    ) -> None:
        """Set what a stage was measured to take at one bucket.

        Raises:
            ValueError: `batch_size` is no bucket.
        """
        bucket = self.buckets.index(batch_size)
        unknown = [0.0] * len(self.buckets)
        known = self._stages.get(stage) or self._add(stage, unknown, unknown)
        known.trunk.set(bucket, trunk_s / self.pace)
        known.classifier.set(bucket, classifier_s / self.pace)
        known.find_best_batch()
        self.num_changes += 1

    def expected_s(self, stage: StageKey, batch_size: int, num_classified: int) -> float:
        """Return the seconds a stage is expected to take.

        Args:
            stage: Which.
            batch_size: Images, at least one; more than the largest batch run in several.
            num_classified: How many of them the classifier also looks at.
        """
        # Asked several times in every decision: no call that can be spared.
        try:
            known = self._stages[stage]
            return self.pace * (
                known.trunk.by_size[batch_size] + known.classifier.by_size[num_classified]
            )
        except KeyError:
            return 0.0
        except IndexError:
            return self.pace * self._stages[stage].at(batch_size, num_classified)

    def best_batch(self, stage: StageKey) -> int:
        """Return the smallest bucket with nearly the least time per image, as it was profiled.

        Classifier included. Not learnt: chance would in time make it ever smaller, as what is not
        run is not learnt either. The largest batch where nothing is known.
        """
        known = self._stages.get(stage)
        return self.max_batch if known is None else known.best_batch

    def p99_s(self, stage: StageKey, batch_size: int) -> float:
        """Return the seconds that 99 of 100 batches stay below, every image classified.

        From this stage's last batches of any size, as multiples of what was expected of them; twice
        the expectation before the first. For watching, not for planning: it takes 10 µs.
        """
        known = self._stages.get(stage)
        if known is None:
            return 0.0
        return known.p99_overrun * self.expected_s(stage, batch_size, batch_size)

    def observe(
        self, stage: StageKey, batch_size: int, num_classified: int, elapsed_s: float
    ) -> None:
        """Learn from a batch that ran; trunk and classifier share the surprise by their parts.

        Args:
            stage: Which.
            batch_size: Images, from 1 to the largest batch.
            num_classified: How many of them the classifier looked at.
            elapsed_s: Wall time of all of it.
        """
        known = self._stages.get(stage)
        expected_s = 0.0 if known is None else self.pace * known.at(batch_size, num_classified)
        self.num_changes += 1
        if known is None or expected_s <= 0.0:
            self._guess(stage, batch_size, elapsed_s)
            return
        overrun = elapsed_s / expected_s
        known.note_overrun(overrun)
        surprise = min(max(overrun - 1.0, -_MAX_SURPRISE), _MAX_SURPRISE)
        trunk_part = self.pace * known.trunk.by_size[batch_size] / expected_s
        known.trunk.scale(batch_size, _OWN_RATE * surprise * trunk_part)
        if num_classified:
            known.classifier.scale(num_classified, _OWN_RATE * surprise * (1.0 - trunk_part))
        self.pace *= 1.0 + _PACE_RATE * surprise

    def times(self, model: ModelKey) -> "ModelTimes":
        """Return the part about one model, as exit policies ask for it; one and the same always."""
        try:
            return self._times[model]
        except KeyError:
            return self._times.setdefault(model, ModelTimes(self, {}))

    def _add(
        self, stage: StageKey, trunk_s: Sequence[float], classifier_s: Sequence[float]
    ) -> StageEstimate:
        known = StageEstimate(Curve(self.buckets, trunk_s), Curve(self.buckets, classifier_s))
        self._stages[stage] = known
        self.times(stage.model).learn_of(stage.stage_index, known)
        return known

    def _guess(self, stage: StageKey, batch_size: int, elapsed_s: float) -> None:
        # Larger batches in proportion, smaller ones no faster: the cautious end of both.
        guess = [elapsed_s / self.pace * max(1.0, size / batch_size) for size in self.buckets]
        self._add(stage, guess, [0.0] * len(self.buckets))


@dataclass(frozen=True, slots=True)
class _Shares:
    """Seconds per image at each stage's best batch and at pace 1, added up. Replaced whole."""

    num_changes: int  # of the estimates they were added up from
    trunk_s: tuple[float, ...]  # by stage
    stage_s: tuple[float, ...]  # by stage, its classifier included
    before_s: tuple[float, ...]  # by stage: all trunks before it; one more than there are stages


class ModelTimes:
    """Expected seconds of the stages of one model; always those of the present moment.

    Mutable only through its `StageCosts`; asked by anybody. An unknown stage takes no time.

    Args:
        stage_costs: Where they come from.
        stages: By stage index; its owner goes on learning them.
    """

    __slots__ = ("_shares", "_stages", "stage_costs")

    def __init__(self, stage_costs: StageCosts, stages: Mapping[int, StageEstimate]) -> None:
        self.stage_costs = stage_costs
        self._stages = dict(stages)
        self._shares = self._add_up()

    def learn_of(self, stage_index: int, stage: StageEstimate) -> None:
        """Take in a stage that was unknown so far; for `StageCosts` alone."""
        self._stages[stage_index] = stage

    def stage_s(self, stage_index: int, batch_size: int = 1, *, num_classified: int) -> float:
        """Return the seconds of one stage; more than the largest batch run in several."""
        known = self._stages.get(stage_index)
        if known is None:
            return 0.0
        return self.stage_costs.pace * known.at(batch_size, num_classified)

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

    def best_batch(self, stage_index: int) -> int:
        """Return the batch beyond which larger ones do not pay; see `StageCosts.best_batch`."""
        known = self._stages.get(stage_index)
        return self.stage_costs.max_batch if known is None else known.best_batch

    def share_s(self, stage_index: int, *, classify: bool) -> float:
        """Return the seconds of one image in a batch of the best size."""
        shares = self._current()
        try:
            share_s = (shares.stage_s if classify else shares.trunk_s)[stage_index]
        except IndexError:
            return 0.0
        return self.stage_costs.pace * share_s

    def straight_share_s(self, first_stage: int, exit_index: int) -> float:
        """Return the seconds of one image from before a stage to an exit, in batches of best size.

        No classifier on the way; 0 where the exit lies before the stage.
        """
        if exit_index < first_stage:
            return 0.0
        shares = self._current()
        try:
            trunks_s = shares.before_s[exit_index] - shares.before_s[first_stage]
            return self.stage_costs.pace * (trunks_s + shares.stage_s[exit_index])
        except IndexError:  # the exit is unknown, but perhaps not all before it
            trunks_s = shares.before_s[-1] - shares.before_s[min(first_stage, len(shares.stage_s))]
            return self.stage_costs.pace * trunks_s

    def _current(self) -> _Shares:
        shares = self._shares
        if shares.num_changes != self.stage_costs.num_changes:
            self._shares = shares = self._add_up()
        return shares

    def _add_up(self) -> _Shares:
        # Read first: what changes while this adds up makes it add up again.
        num_changes = self.stage_costs.num_changes
        trunk_s, stage_s = [], []
        for index in range(max(self._stages, default=-1) + 1):
            known = self._stages.get(index)
            size = 1 if known is None else known.best_batch
            trunk_s.append(0.0 if known is None else known.trunk.by_size[size] / size)
            classifier_s = 0.0 if known is None else known.classifier.by_size[size] / size
            stage_s.append(trunk_s[-1] + classifier_s)
        before_s = tuple(accumulate(trunk_s, initial=0.0))
        return _Shares(num_changes, tuple(trunk_s), tuple(stage_s), before_s)
