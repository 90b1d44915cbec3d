"""What stages take, as a table of numbers that one process writes and others read."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.backends.base import ModelKey, StageKey
from service.engine.stage_costs import StageCosts


class StageTable:
    """Copies between what is known of stages and a row of numbers.

    Both processes list models and batch sizes alike, since both read the same bundles and settings.

    Args:
        num_exits_by_model: In the same order on both sides.
        stage_costs: Written out by the one process, filled in by the other.
    """

    def __init__(self, num_exits_by_model: Mapping[ModelKey, int], stage_costs: StageCosts) -> None:
        self._stage_costs = stage_costs
        self._entries = [
            (StageKey(model, stage_index), size)
            for model, num_exits in num_exits_by_model.items()
            for stage_index in range(num_exits)
            for size in stage_costs.buckets
        ]
        self._last: NDArray[np.float64] | None = None
        self.size = 2 * len(self._entries)

    def write(self, table: NDArray[np.float64]) -> None:
        """Write down what stages are expected to take now: each one's trunk, then classifier."""
        expected_s = self._stage_costs.expected_s
        seconds = []
        for stage, size in self._entries:
            trunk_s = expected_s(stage, size, 0)
            seconds += [trunk_s, expected_s(stage, size, size) - trunk_s]
        table[:] = seconds

    def read(self, table: NDArray[np.float64]) -> None:
        """Take in what the other process wrote; nothing where nothing has changed."""
        latest = table.copy()
        if self._last is not None and np.array_equal(latest, self._last):
            return
        self._last = latest
        seconds = latest.tolist()
        pairs = zip(seconds[::2], seconds[1::2], strict=True)
        for (stage, size), (trunk_s, classifier_s) in zip(self._entries, pairs, strict=True):
            self._stage_costs.profile(stage, size, trunk_s=trunk_s, classifier_s=classifier_s)
