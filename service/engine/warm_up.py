"""Profiles every stage at every batch size before anything is admitted, and warms the runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
from service.engine.side_by_side import SideBySide
from service.engine.stage_costs import StageCosts

_MOST_REPEATS: Final = 15
_ENOUGH_S: Final = 0.015  # to spend on one number: a stage that takes longer is timed but once
_SEED: Final = 0


class WarmUp:
    """Runs stages on noise and writes down what they take while all lanes run the same.

    What admission must be right about is a loaded server, and there a stage shares caches, memory
    and the interpreter with those of other lanes. It drives the backend itself, so no lane may run
    meanwhile.

    Args:
        backend: To profile.
        stage_costs: Where the times go.
        clock: To take them by, in every lane.
        num_lanes: That will run at once.
    """

    def __init__(
        self, backend: StageBackend, stage_costs: StageCosts, clock: Clock, *, num_lanes: int = 1
    ) -> None:
        self._backend = backend
        self._stage_costs = stage_costs
        self._clock = clock
        self._num_lanes = num_lanes

    def profile(self, model: ServedModel) -> int:
        """Run every stage of a model at every batch size, with and without its classifier.

        Returns:
            MACs executed on the way, by all lanes together.

        Raises:
            BackendFailed: A stage does not run.
        """
        # Not zeros: some kernels are quicker on them.
        shape = (self._stage_costs.max_batch, *model.input_shape)
        pixels = np.random.default_rng(_SEED).standard_normal(shape, dtype=np.float32)
        with SideBySide(self._num_lanes) as lanes:
            return sum(
                self._profile_size(model, pixels[:size], lanes)
                for size in self._stage_costs.buckets
            )

    def _profile_size(
        self, model: ServedModel, pixels: NDArray[np.float32], lanes: SideBySide
    ) -> int:
        macs, parts = 0, self._arrivals(model.key, pixels)
        for stage_index in range(model.costs.num_exits):
            stage = StageKey(model.key, stage_index)
            trial = _Trial(self._backend, self._clock, stage, parts)
            times = trial.measure(lanes)
            self._stage_costs.profile(
                stage, len(pixels), trunk_s=times.trunk_s, classifier_s=times.classifier_s
            )
            macs += times.num_trunk_rows * model.costs.trunk_macs[stage_index]
            macs += times.num_classified * model.costs.classifier_macs[stage_index]
            parts = self._survivors(times.features)
        return macs

    def _arrivals(self, model: ModelKey, pixels: NDArray[np.float32]) -> list[FeatureRows]:
        """Return images as requests bring them: each by itself, to be joined."""
        if not self._backend.can_join:
            return [FeatureRows(self._backend.put(model, pixels), tuple(range(len(pixels))))]
        return [
            FeatureRows(self._backend.put(model, pixels[row : row + 1]), (0,))
            for row in range(len(pixels))
        ]

    def _survivors(self, features: FeatureHandle) -> list[FeatureRows]:
        """Return images as earlier exits leave them: scattered over two batches, to be joined."""
        rows = tuple(range(features.num_rows))
        if len(rows) == 1 or not self._backend.can_join:
            return [FeatureRows(features, rows)]
        return [FeatureRows(features, rows[::2]), FeatureRows(features, rows[1::2])]


@dataclass(frozen=True, slots=True)
class _Times:
    """What a trial found."""

    features: FeatureHandle  # that the stage left
    trunk_s: float
    classifier_s: float  # that it adds for all images
    num_trunk_rows: int  # executed on the way
    num_classified: int


def _undisturbed(times_s: Sequence[float]) -> float:
    """Return the lower quartile: what other processes do meanwhile only ever adds."""
    return sorted(times_s)[len(times_s) // 4]


@dataclass(frozen=True, slots=True)
class _Trial:
    """One stage at one batch size."""

    backend: StageBackend
    clock: Clock
    stage: StageKey
    parts: Sequence[FeatureRows]

    def measure(self, lanes: SideBySide) -> _Times:
        """Run it without and with its classifier, in all lanes at once."""
        size = sum(len(part.rows) for part in self.parts)
        everyone = range(size)
        # The first runs pay for memory and are not counted.
        outputs = lanes.run(lambda: self._run(everyone))
        trunks_s = list(chain.from_iterable(lanes.run(lambda: self._repeat(()))))
        wholes_s = list(chain.from_iterable(lanes.run(lambda: self._repeat(everyone))))
        trunk_s = _undisturbed(trunks_s)
        num_with_classifier = len(outputs) + len(wholes_s)
        return _Times(
            outputs[0].features,
            trunk_s,
            max(0.0, _undisturbed(wholes_s) - trunk_s),
            num_trunk_rows=size * (num_with_classifier + len(trunks_s)),
            num_classified=size * num_with_classifier,
        )

    def _repeat(self, classify: Sequence[int]) -> list[float]:
        begun_at = ended_at = self.clock.now()
        times_s: list[float] = []
        while len(times_s) < _MOST_REPEATS and ended_at - begun_at < _ENOUGH_S:
            run_at = ended_at
            self._run(classify)
            ended_at = self.clock.now()
            times_s.append(ended_at - run_at)
        return times_s

    def _run(self, classify: Sequence[int]) -> StageOutput:
        return self.backend.submit(self.stage, self.parts, classify=classify).result()
