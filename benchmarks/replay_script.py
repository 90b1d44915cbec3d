"""What a simulated machine does: recorded logits at measured latencies."""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from service.backends.base import FeatureHandle
from service.engine.cohort import InFlightCohort
from service.engine.request import ExitRecord
from service.engine.stage_run import StageResult, StageRun


@dataclass(frozen=True, slots=True)
class _Rows:
    """Features of nobody: as many rows as ran."""

    num_rows: int
    feature_bytes: int = 0


class ReplayScript:
    """Recorded logits and measured latencies: image i is known by the first value of its pixels.

    Args:
        logits: What every exit says of every image, shape ``(images, exits, classes)``.
        confidences: The same, calibrated, shape ``(images, exits)``.
        seconds: What a stage takes, of a batch size and how many of it are classified.
    """

    def __init__(
        self,
        logits: NDArray[np.float32],
        confidences: NDArray[np.float64],
        seconds: Callable[[int, int, int], float],
    ) -> None:
        self._logits = logits
        self._confidences = confidences
        self._seconds = seconds
        self._num_exits = logits.shape[1]
        self._images: WeakKeyDictionary[InFlightCohort, int] = WeakKeyDictionary()

    def run(self, batch: StageRun) -> tuple[StageResult, float]:
        """See `Script.run`."""
        stage_index = batch.stage.stage_index
        for image, pixels in zip(batch.images, batch.pixels, strict=False):
            if pixels is not None:
                self._images[image.cohort] = int(pixels[image.position].flat[0])
        records = {
            at: self._record(self._images[image.cohort], stage_index)
            for at, image in enumerate(batch.images)
            if batch.classify[at]
        }
        is_last = stage_index == self._num_exits - 1
        features: FeatureHandle | None = None if is_last else _Rows(len(batch.images))
        elapsed_s = self._seconds(stage_index, len(batch.images), len(records))
        return StageResult(features, None, records), elapsed_s

    def _record(self, image: int, exit_index: int) -> ExitRecord:
        confidence = float(self._confidences[image, exit_index])
        return ExitRecord(exit_index, self._logits[image, exit_index], confidence)
