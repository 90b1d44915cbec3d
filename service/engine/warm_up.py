"""Profiles every stage at every batch size before anything is admitted, and warms the runtime."""

from collections.abc import Sequence
from statistics import median
from typing import Final

import numpy as np

from model_store.costs import ExitCosts
from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageBackend,
    StageKey,
    StageOutput,
)
from service.engine.clock import Clock
from service.engine.request import ServedModel
from service.engine.stage_costs import StageCosts

_REPEATS: Final = 3
_SEED: Final = 0


class WarmUp:
    """Runs stages on noise and writes down what they take.

    Mutable; it drives the backend itself, so no lane may run meanwhile.

    Args:
        backend: To profile.
        stage_costs: Where the times go.
        clock: To take them by.
    """

    def __init__(self, backend: StageBackend, stage_costs: StageCosts, clock: Clock) -> None:
        self._backend = backend
        self._stage_costs = stage_costs
        self._clock = clock
        self._costs_by_model: dict[ModelKey, ExitCosts] = {}
        self._macs = 0

    def profile(self, model: ServedModel) -> int:
        """Run every stage of a model at every batch size, with and without its classifier.

        Returns:
            MACs executed on the way.

        Raises:
            BackendFailed: A stage does not run.
        """
        self._costs_by_model[model.key], self._macs = model.costs, 0
        noise = np.random.default_rng(_SEED)
        for batch_size in self._stage_costs.buckets:
            shape = (batch_size, *model.input_shape)
            # Not zeros: some kernels are quicker on them.
            inputs = noise.standard_normal(shape, dtype=np.float32)
            features = self._backend.put(model.key, inputs)
            for stage_index in range(model.costs.num_exits):
                features = self._profile_stage(StageKey(model.key, stage_index), features)
        return self._macs

    def _profile_stage(self, stage: StageKey, features: FeatureHandle) -> FeatureHandle:
        parts = self._parts(features)
        everyone = range(features.num_rows)
        self._run(stage, parts, everyone)  # the first run pays for memory and is not counted
        trunk_s = median(self._time(stage, parts, ()) for _ in range(_REPEATS))
        whole_s = median(self._time(stage, parts, everyone) for _ in range(_REPEATS))
        self._stage_costs.profile(
            stage,
            features.num_rows,
            trunk_s=trunk_s,
            classifier_s=max(0.0, whole_s - trunk_s),
        )
        return self._run(stage, parts, ()).features

    def _parts(self, features: FeatureHandle) -> list[FeatureRows]:
        num_rows = features.num_rows
        if num_rows == 1 or not self._backend.can_join:
            return [FeatureRows(features, tuple(range(num_rows)))]
        # In two parts, because what is measured is to contain the joining.
        half = num_rows // 2
        halves = (range(half), range(half, num_rows))
        return [FeatureRows(features, tuple(rows)) for rows in halves]

    def _time(
        self, stage: StageKey, parts: Sequence[FeatureRows], classify: Sequence[int]
    ) -> float:
        begun_at = self._clock.now()
        self._run(stage, parts, classify)
        return self._clock.now() - begun_at

    def _run(
        self, stage: StageKey, parts: Sequence[FeatureRows], classify: Sequence[int]
    ) -> StageOutput:
        costs = self._costs_by_model[stage.model]
        num_rows = sum(len(part.rows) for part in parts)
        self._macs += num_rows * costs.trunk_macs[stage.stage_index]
        self._macs += len(classify) * costs.classifier_macs[stage.stage_index]
        return self._backend.submit(stage, parts, classify=classify).result()
