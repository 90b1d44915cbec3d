"""What every backend refuses before it runs anything, in the same words."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.backends.base import FeatureRows, ModelKey, StageKey
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


def check_rows(parts: Sequence[FeatureRows], classify: Sequence[int]) -> int:
    """Return how many rows the parts have together, if all of them exist.

    Raises:
        BackendFailed: There is no row, or one out of range, in a part or to be classified.
    """
    num_rows = sum(len(part.rows) for part in parts)
    if num_rows == 0:
        raise BackendFailed("a stage was given no rows")
    for part in parts:
        _check_range(part.rows, num_rows=part.handle.num_rows)
    _check_range(classify, num_rows=num_rows)
    return num_rows


def _check_range(rows: Sequence[int], *, num_rows: int) -> None:
    if rows and not 0 <= min(rows) <= max(rows) < num_rows:
        raise BackendFailed(f"rows {min(rows)} to {max(rows)} asked for, there are {num_rows}")
