"""What every backend refuses before it runs anything, in the same words."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.backends.base import FeatureRows, ModelKey, StageKey
from service.backends.selection import Selection, select
from service.errors import BackendFailed

ModelT = TypeVar("ModelT")


def model_of(models: Mapping[ModelKey, ModelT], key: ModelKey) -> ModelT:
    """Return what a backend holds of a model.

    Raises:
        BackendFailed: It was not built with that model.
    """
    try:
        return models[key]
    except KeyError:
        raise BackendFailed(f"no model {key.name}@{key.version} in this backend") from None


def check_stage(stage: StageKey, *, num_stages: int) -> None:
    """Refuse a stage that the model does not have.

    Raises:
        BackendFailed: So it is.
    """
    if not 0 <= stage.stage_index < num_stages:
        raise BackendFailed(
            f"{stage.model.name}@{stage.model.version} has stages 0 to {num_stages - 1}, "
            f"not {stage.stage_index}"
        )


def check_inputs(inputs: NDArray[np.float32], *, image_shape: tuple[int, ...]) -> None:
    """Refuse pixels that stage 0 cannot read.

    Raises:
        BackendFailed: They are no float32, no image, or of another size.
    """
    if inputs.dtype != np.float32 or inputs.shape[1:] != image_shape or not len(inputs):
        raise BackendFailed(
            f"inputs are {inputs.dtype} {inputs.shape}, stage 0 reads float32 (B, "
            f"{', '.join(map(str, image_shape))})"
        )


def select_rows(parts: Sequence[FeatureRows]) -> list[Selection]:
    """Return the rows of each part, if all of them exist.

    Raises:
        BackendFailed: There is no row at all, or one out of range.
    """
    selections = [select(part.rows, of=part.handle.num_rows) for part in parts]
    if not any(selection.rows for selection in selections):
        raise BackendFailed("a stage was given no rows")
    return selections
