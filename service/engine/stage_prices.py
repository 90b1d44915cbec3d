"""What the stages of a model cost, added up for every way through it: what decisions look up.

Asking `StageCosts` for every image and exit would cost more than deciding; a price is one look into
a tuple, and at most `RENEWED_EVERY_S` old.
"""

import math
from collections.abc import Sequence
from typing import Final

from service.backends.base import ModelKey, StageKey
from service.engine.stage_costs import StageCosts

RENEWED_EVERY_S: Final = 1.0

# An image alone on an idle machine takes the time predicted; on the way it meets others.
_COMFORT_FACTOR: Final = 2.0

_NOTABLE: Final = 0.05  # a change of proportion that is worth ranking everybody anew


class ModelPrices:
    """Seconds from before a stage to an exit, no classifier on the way, its own included. Mutable.

    Tables are indexed by stage, then by exit, and 0 where the exit lies before the stage; there is
    one stage more than exits, from where nothing is left to pay.

    Args:
        model: Whose.
        num_exits: How many it has.
        stage_costs: What stages are expected to take.

    Attributes:
        stages: The keys of its stages, in order.
        best_batch: By stage, the batch beyond which time per image hardly falls any more.
        alone_s: For an image that runs alone.
        paced_s: As fast as can be counted on where others want to run too.
        step_s: Its part of batches of the best size, by stage: of the trunk, and of the classifier.
        per_image_s: The same added up; replaced only when stages cost something else compared with
            each other, not when the whole machine grows slower, so that an order by them lasts.
        version: How often that was.
    """

    def __init__(self, model: ModelKey, num_exits: int, stage_costs: StageCosts) -> None:
        self.stages = tuple(StageKey(model, index) for index in range(num_exits))
        self._stage_costs = stage_costs
        self._renew_at = -math.inf
        self.version = 0
        self.best_batch: tuple[int, ...] = ()
        self.alone_s: tuple[tuple[float, ...], ...] = ()
        self.paced_s: tuple[tuple[float, ...], ...] = ()
        self.step_s: tuple[tuple[float, float], ...] = ()
        self.per_image_s: tuple[tuple[float, ...], ...] = ()
        self._proportions: tuple[float, ...] = ()  # of the steps, as of `version`

    def renew(self, now: float) -> None:
        """Bring them up to date, if they are too old."""
        if now < self._renew_at:
            return
        self._renew_at = now + RENEWED_EVERY_S
        costs = self._stage_costs
        self.best_batch = tuple(max(1, costs.best_batch(stage)) for stage in self.stages)
        alone = [self._parts_s(stage, 1) for stage in self.stages]
        together = [
            self._parts_s(stage, size)
            for stage, size in zip(self.stages, self.best_batch, strict=True)
        ]
        self.step_s = tuple(
            (trunk_s / size, classifier_s / size)
            for (trunk_s, classifier_s), size in zip(together, self.best_batch, strict=True)
        )
        self.alone_s = _ways(alone)
        self.paced_s = _slower(self.alone_s, _ways(together))
        proportions = _proportions(self.step_s)
        if not self.version or _differ(proportions, self._proportions):
            self._proportions = proportions
            self.per_image_s = _ways(self.step_s)
            self.version += 1

    def share_s(self, stage_index: int, size: int, num_classified: int) -> float:
        """Return what some images would take of one stage as part of batches of the best size."""
        trunk_s, classifier_s = self.step_s[stage_index]
        return size * trunk_s + num_classified * classifier_s

    def _parts_s(self, stage: StageKey, size: int) -> tuple[float, float]:
        """Return what a trunk takes, and how much longer the classifier makes it."""
        trunk_s = self._stage_costs.expected_s(stage, size, 0)
        return trunk_s, self._stage_costs.expected_s(stage, size, size) - trunk_s


def _proportions(steps_s: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Return each stage's part of the whole way, classifiers included; 0 where nothing is known."""
    stages_s = [trunk_s + classifier_s for trunk_s, classifier_s in steps_s]
    whole_s = sum(stages_s)
    return tuple(stage_s / whole_s if whole_s > 0.0 else 0.0 for stage_s in stages_s)


def _differ(proportions: Sequence[float], before: Sequence[float]) -> bool:
    return any(
        abs(now - then) > _NOTABLE * then for now, then in zip(proportions, before, strict=True)
    )


def _slower(
    alone_s: tuple[tuple[float, ...], ...], batch_s: tuple[tuple[float, ...], ...]
) -> tuple[tuple[float, ...], ...]:
    return tuple(
        tuple(max(_COMFORT_FACTOR * alone, batch) for alone, batch in zip(*rows, strict=True))
        for rows in zip(alone_s, batch_s, strict=True)
    )


def _ways(parts: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], ...]:
    """Add up trunks and the last classifier from every stage to every exit."""
    rows = []
    for first in range(len(parts) + 1):
        row = [0.0] * first
        trunks_s = 0.0
        for trunk_s, classifier_s in parts[first:]:
            trunks_s += trunk_s
            row.append(trunks_s + classifier_s)
        rows.append(tuple(row))
    return tuple(rows)
