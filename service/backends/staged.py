"""How a stage runs, whatever the runtime: pick rows, run the trunk, classify some of what it left.

A runtime brings its tensors, a store that picks rows of them, and its stages as callables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

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
from service.backends.requests import check_inputs, check_stage, model_of, select_rows
from service.backends.selection import Selection, select
from service.backends.tickets import Done, Failed
from service.errors import BackendFailed

TensorT = TypeVar("TensorT")


class TensorStore(Protocol[TensorT]):
    """Where a runtime's tensors lie, and how rows of them are picked there."""

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


@dataclass(frozen=True, slots=True)
class LoadedModel(Generic[TensorT]):
    """A model that can be run."""

    image_shape: tuple[int, ...]  # (3, H, W)
    num_classes: int
    stages: tuple[LoadedStage[TensorT], ...]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Features(Generic[TensorT]):
    model: ModelKey
    next_stage_index: int
    tensors: tuple[TensorT, ...]  # finest scale first
    num_rows: int


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
        try:
            tensor = self._store.put(np.ascontiguousarray(inputs))
        except self._errors as error:
            raise BackendFailed(f"inputs {inputs.shape} were not taken in: {error}") from error
        return _Features(model, 0, (tensor,), len(inputs))

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
        features = [self._features(stage, part.handle) for part in parts]
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
        left = _Features(stage.model, stage.stage_index + 1, border, num_rows)
        return StageOutput(left, logits)

    def _joined(
        self, features: Sequence[_Features[TensorT]], selections: Sequence[Selection]
    ) -> Sequence[TensorT]:
        if len(selections) == 1 and selections[0].is_whole:
            return features[0].tensors
        by_border_tensor = zip(*(f.tensors for f in features), strict=True)
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

    def _features(self, stage: StageKey, handle: FeatureHandle) -> _Features[TensorT]:
        if not isinstance(handle, _Features):
            raise BackendFailed(f"{type(handle).__name__} was not left by this backend")
        if (handle.model, handle.next_stage_index) != (stage.model, stage.stage_index):
            raise BackendFailed(
                f"features are for stage {handle.next_stage_index} of {handle.model}, not {stage}"
            )
        return handle
