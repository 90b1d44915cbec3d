"""What becomes of a runtime's own errors."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from service.backends.base import ModelKey
from service.backends.selection import Selection
from service.backends.staged import LoadedModel, StageRunner
from service.errors import BackendFailed

KEY = ModelKey("toy", "1")


class FullDevice:
    """A store that has no room for anything."""

    def put(self, array: NDArray[np.float32]) -> int:
        raise MemoryError(f"{array.nbytes} bytes asked for, 0 left")

    def fetch(self, tensor: int) -> NDArray[np.float32]:
        raise NotImplementedError

    def pick(self, tensors: Sequence[int], selections: Sequence[Selection]) -> int:
        raise NotImplementedError


def test_a_device_without_room_is_a_failed_backend():
    model: LoadedModel[int] = LoadedModel(image_shape=(3, 2, 2), num_classes=2, stages=())
    runner = StageRunner({KEY: model}, store=FullDevice(), errors=(MemoryError,))

    with pytest.raises(BackendFailed, match="not taken in: 48 bytes asked for, 0 left"):
        runner.put(KEY, np.zeros((1, 3, 2, 2), np.float32))
