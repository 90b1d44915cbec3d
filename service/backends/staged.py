"""How a stage runs, whatever the runtime: pick rows, run the trunk, classify some of what it left.

A runtime brings its tensors, a store that picks rows of them, and its stages as callables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageKey,
    StageOutput,
    Ticket,
)
from service.backends.host_rows import pick
from service.backends.requests import check_inputs, check_stage, model_of, select_rows
from service.backends.selection import Selection, select
from service.backends.tickets import Done, Failed
from service.errors import BackendFailed

TensorT = TypeVar("TensorT")


class TensorStore(Protocol[TensorT]):
    """Where a runtime's tensors lie, and how rows of them are picked there; for all threads."""

    def put(self, array: NDArray[np.float32]) -> TensorT:
        """Return a tensor of the same numbers; it may refer to the array."""
        ...

    def fetch(self, tensor: TensorT) -> NDArray[np.float32]:
        """Return the numbers of a tensor, waiting for them."""
        ...

    def pick(self, tensors: Sequence[TensorT], selections: Sequence[Selection]) -> TensorT:
        """Return the selected rows of each tensor, one tensor after another.

        The result is only read, so it may refer to the one tensor that it comes from.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedStage(Generic[TensorT]):
    """A stage that can be run."""

    trunk: Callable[[Sequence[TensorT]], tuple[TensorT, ...]]
    classifier: Callable[[Sequence[TensorT]], tuple[TensorT, ...]]
    classifier_reads: tuple[int, ...]  # positions among what the trunk returns
    border_bytes: int  # of what the trunk returns, for one image


@dataclass(frozen=True, slots=True)
class LoadedModel(Generic[TensorT]):
    """A model that can be run."""

    image_shape: tuple[int, ...]  # (3, H, W)
    num_classes: int
    stages: tuple[LoadedStage[TensorT], ...]


# Not frozen, which would make them three times as slow to make; nobody writes to them.
@dataclass(slots=True, weakref_slot=True, eq=False)
class _Features(Generic[TensorT]):
    stage: StageKey  # that reads them
    tensors: tuple[TensorT, ...]  # finest scale first; of stage 0 pixels, in the host's memory
    num_rows: int
    feature_bytes: int


class StageRunner(Generic[TensorT]):
    """Runs stages of loaded models; all that backends with real networks have in common.

    Args:
        models: By key.
        store: Of the device on which they are loaded.
        errors: What the runtime raises; told to the caller as `BackendFailed`.
    """

    def __init__(
        self,
        models: Mapping[ModelKey, LoadedModel[TensorT]],
        *,
        store: TensorStore[TensorT],
        errors: tuple[type[Exception], ...],
    ) -> None:
        self._models = dict(models)
        self._store = store
        self._errors = errors

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in pixels; see `StageBackend.put`."""
        check_inputs(inputs, image_shape=model_of(self._models, model).image_shape)
        # They stay with the host until stage 0: pixels of many requests are joined there and cross
        # over to a device at once.
        pixels = np.ascontiguousarray(inputs)
        return _Features(StageKey(model, 0), (pixels,), len(pixels), pixels.nbytes)

    def adopt(self, stage: StageKey, tensors: tuple[TensorT, ...], num_rows: int) -> FeatureHandle:
        """Return features that a stage reads and that were left elsewhere; nothing is checked."""
        return _Features(stage, tensors, num_rows, 0)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Run a stage before returning; see `StageBackend.submit`."""
        try:
            return Done(self._run(stage, parts, classify))
        except BackendFailed as error:
            return Failed(error)

    def close(self) -> None:
        """Let go of the models, and with them of the runtime."""
        self._models.clear()

    def _run(
        self, stage: StageKey, parts: Sequence[FeatureRows], classify: Sequence[int]
    ) -> StageOutput:
        model = model_of(self._models, stage.model)
        check_stage(stage, num_stages=len(model.stages))
        features = [_read_by(stage, part.handle) for part in parts]
        selections = select_rows(parts)
        num_rows = sum(len(selection.rows) for selection in selections)
        classified = select(classify, of=num_rows)
        loaded = model.stages[stage.stage_index]
        try:
            border = loaded.trunk(self._joined(features, selections))
            logits = self._logits(loaded, border, classified)
        except self._errors as error:
            raise BackendFailed(f"{stage} failed on {num_rows} images: {error}") from error
        if logits is None:
            logits = np.empty((0, model.num_classes), dtype=np.float32)
        next_stage = StageKey(stage.model, stage.stage_index + 1)
        left = _Features(next_stage, border, num_rows, num_rows * loaded.border_bytes)
        return StageOutput(left, logits)

    def _joined(
        self, features: Sequence[_Features[Any]], selections: Sequence[Selection]
    ) -> Sequence[TensorT]:
        is_first = features[0].stage.stage_index == 0
        if not is_first and len(selections) == 1 and selections[0].is_whole:
            return features[0].tensors
        by_border_tensor = zip(*[part.tensors for part in features], strict=True)
        if is_first:
            return [self._store.put(pick(arrays, selections)) for arrays in by_border_tensor]
        return [self._store.pick(tensors, selections) for tensors in by_border_tensor]

    def _logits(
        self, loaded: LoadedStage[TensorT], border: Sequence[TensorT], chosen: Selection
    ) -> NDArray[np.float32] | None:
        if not chosen.rows:
            return None
        read = [border[i] for i in loaded.classifier_reads]
        if not chosen.is_whole:
            read = [self._store.pick([tensor], [chosen]) for tensor in read]
        (logits,) = loaded.classifier(read)
        return self._store.fetch(logits)


def _read_by(stage: StageKey, handle: FeatureHandle) -> _Features[Any]:
    if not isinstance(handle, _Features):
        raise BackendFailed(f"{type(handle).__name__} was not left by this backend")
    if handle.stage != stage:
        raise BackendFailed(
            f"features are for stage {handle.stage.stage_index} of {handle.stage.model}, "
            f"not {stage}"
        )
    return handle
