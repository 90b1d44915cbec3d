"""A backend that computes nothing, driven as the real one is on a CPU: by the event loop."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_store.reader import Bundle
from service.backends.base import FeatureRows, ModelKey, StageBackend, StageKey, StageOutput, Ticket
from service.backends.tickets import Done
from service.settings import Settings

_LARGEST_BATCH: Final = 1024


@dataclass(frozen=True, slots=True)
class _NoFeatures:
    """What a stage leaves that computed nothing."""

    num_rows: int
    feature_bytes: int = 0


class FreeBackend:
    """Answers the same for every image, from a table; nothing is looked at.

    Args:
        num_classes_by_model: Of every model.
        num_lanes: That run at once.
    """

    name = "free"
    device = "cpu"
    can_join = True

    def __init__(self, num_classes_by_model: Mapping[ModelKey, int], *, num_lanes: int) -> None:
        self._logits_by_model: dict[ModelKey, NDArray[np.float32]] = {
            key: np.tile(np.arange(num_classes, dtype=np.float32) / 2, (_LARGEST_BATCH, 1))
            for key, num_classes in num_classes_by_model.items()
        }
        self.lanes = tuple(_FreeLane(self) for _ in range(num_lanes))

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> _NoFeatures:
        """Look at nothing; see `StageBackend.put`."""
        del model
        return _NoFeatures(len(inputs))

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Answer at once; see `StageBackend.submit`."""
        return Done(self.output(stage, parts, classify))

    def output(
        self, stage: StageKey, parts: Sequence[FeatureRows], classify: Sequence[int]
    ) -> StageOutput:
        """Return what a stage leaves."""
        features = _NoFeatures(sum(len(part.rows) for part in parts))
        return StageOutput(features, self._logits_by_model[stage.model][: len(classify)])

    def close(self) -> None:
        """Close what lanes are heard by."""
        for lane in self.lanes:
            lane.close()


class _FreeLane:
    """Is heard as a process would be, by a descriptor, and has nothing to do."""

    def __init__(self, backend: FreeBackend) -> None:
        self._backend = backend
        self._descriptor = os.eventfd(0)
        self.put = backend.put

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        os.eventfd_write(self._descriptor, 1)
        return _Heard(self._descriptor, self._backend.output(stage, parts, classify))

    def fileno(self) -> int:
        return self._descriptor

    def waited_s(self) -> float:
        return 0.0

    def revive(self) -> None:
        """It never dies."""

    def take_up(self) -> None:
        """It never dies."""

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A stage that is over."""

    descriptor: int
    output: StageOutput

    def result(self) -> StageOutput:
        os.eventfd_read(self.descriptor)
        return self.output


def free_backend(bundles: Mapping[ModelKey, Bundle], settings: Settings) -> StageBackend:
    """Return a free backend for some bundles."""
    return FreeBackend(
        {key: len(bundle.manifest.labels) for key, bundle in bundles.items()},
        num_lanes=settings.lanes or 1,
    )
