"""Batches in the arena: pixels that come in, and what stages read and leave there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.backends.base import FeatureHandle, FeatureRows, ModelKey, StageKey, StageOutput
from service.backends.processes.arena import Arena, Place
from service.backends.processes.forms import ModelForm
from service.backends.processes.jobs import Part, StageJob
from service.backends.requests import check_inputs, check_stage, model_of, select_rows
from service.backends.selection import select
from service.errors import BackendFailed


# Not frozen, which would make them three times as slow to make; nobody writes to them.
@dataclass(slots=True, weakref_slot=True, eq=False)
class _Features:
    stage: StageKey  # that reads them
    place: Place
    num_rows: int
    feature_bytes: int


@dataclass(frozen=True, slots=True)
class PreparedStage:
    """A job, and what must stay where it is until it is over."""

    job: StageJob
    left: _Features
    read: Sequence[_Features]


class Batches:
    """Puts batches into the arena and says what is to be run on them; thread-safe.

    Args:
        forms: Of all models, in the order by which jobs number them.
        arena: Where batches lie.
    """

    def __init__(self, forms: Mapping[ModelKey, ModelForm], arena: Arena) -> None:
        self._forms = dict(forms)
        self._index_of = {key: index for index, key in enumerate(forms)}
        self._arena = arena

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Copy pixels to where lane processes see them; see `StageBackend.put`."""
        form = model_of(self._forms, model)
        check_inputs(inputs, image_shape=form.image_shape)
        border = form.borders[0]
        num_rows = len(inputs)
        place = self._arena.take(border.block_bytes(num_rows))
        (pixels,) = border.tensors(self._arena.block, place.offset, num_rows)
        pixels[:] = inputs
        return _Features(StageKey(model, 0), place, num_rows, num_rows * border.row_bytes)

    def prepare(
        self, stage: StageKey, parts: Sequence[FeatureRows], classify: Sequence[int]
    ) -> PreparedStage:
        """Return what a process is told, once all is found in order.

        Raises:
            BackendFailed: It is not, or there is no room for what the stage leaves.
        """
        form = model_of(self._forms, stage.model)
        check_stage(stage, num_stages=form.num_stages)
        read = [_read_by(stage, part.handle) for part in parts]
        selections = select_rows(parts)
        num_rows = sum(len(selection.rows) for selection in selections)
        select(classify, of=num_rows)
        border = form.borders[stage.stage_index + 1]
        features_bytes = border.block_bytes(num_rows)
        place = self._arena.take(features_bytes + form.logits_bytes(len(classify)))
        job = StageJob(
            model_index=self._index_of[stage.model],
            stage_index=stage.stage_index,
            features_at=place.offset,
            logits_at=place.offset + features_bytes,
            parts=[
                Part(
                    features.place.offset,
                    features.num_rows,
                    None if selection.is_whole else selection.rows,
                )
                for features, selection in zip(read, selections, strict=True)
                if selection.rows
            ],
            classify=classify,
        )
        next_stage = StageKey(stage.model, stage.stage_index + 1)
        left = _Features(next_stage, place, num_rows, num_rows * border.row_bytes)
        return PreparedStage(job, left, read)

    def output(self, prepared: PreparedStage) -> StageOutput:
        """Return what a stage left that is over."""
        job = prepared.job
        form = model_of(self._forms, prepared.left.stage.model)
        logits = np.ndarray(
            (len(job.classify), form.num_classes),
            np.float32,
            self._arena.block.buffer,
            job.logits_at,
        )
        return StageOutput(prepared.left, logits.copy())

    def close(self) -> None:
        """Take nothing any more."""
        self._forms.clear()


def _read_by(stage: StageKey, handle: FeatureHandle) -> _Features:
    if not isinstance(handle, _Features):
        raise BackendFailed(f"{type(handle).__name__} was not left by this backend")
    if handle.stage != stage:
        raise BackendFailed(
            f"features are for stage {handle.stage.stage_index} of {handle.stage.model}, "
            f"not {stage}"
        )
    return handle
