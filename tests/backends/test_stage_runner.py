"""What becomes of a runtime's own errors."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from service.backends.base import FeatureHandle, FeatureRows, ModelKey, StageKey
from service.backends.host_rows import pick
from service.backends.selection import Selection
from service.backends.staged import LoadedModel, LoadedStage, StageRunner
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


def left(tensors: Sequence[int]) -> tuple[int, ...]:
    raise NotImplementedError


STAGE: LoadedStage[int] = LoadedStage(left, left, classifier_reads=(0,), border_bytes=8)


def test_a_device_without_room_is_a_failed_stage():
    model = LoadedModel(image_shape=(3, 2, 2), num_classes=2, stages=(STAGE,))
    runner = StageRunner({KEY: model}, store=FullDevice(), errors=(MemoryError,))
    pixels = runner.put(KEY, np.zeros((1, 3, 2, 2), np.float32))

    ticket = runner.submit(StageKey(KEY, 0), [FeatureRows(pixels, (0,))], classify=())

    with pytest.raises(BackendFailed, match="failed on 1 images: 48 bytes asked for, 0 left"):
        ticket.result()


class CountingDevice:
    """Keeps arrays as they are and counts what crosses over to it."""

    def __init__(self) -> None:
        self.crossings: list[tuple[int, ...]] = []

    def put(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        self.crossings.append(array.shape)
        return array

    def fetch(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        return tensor

    def pick(
        self, tensors: Sequence[NDArray[np.float32]], selections: Sequence[Selection]
    ) -> NDArray[np.float32]:
        return pick(tensors, selections)


def doubled(tensors: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
    return (2 * tensors[0], tensors[0][:, :1])


def run(
    runner: StageRunner[NDArray[np.float32]], stage_index: int, *parts: FeatureRows
) -> FeatureHandle:
    return runner.submit(StageKey(KEY, stage_index), parts, classify=()).result().features


@pytest.fixture
def doubling() -> tuple[StageRunner[NDArray[np.float32]], CountingDevice]:
    device = CountingDevice()
    stages = tuple(LoadedStage(doubled, doubled, (0,), border_bytes=64) for _ in range(2))
    model = LoadedModel(image_shape=(3, 2, 2), num_classes=2, stages=stages)
    return StageRunner({KEY: model}, store=device, errors=(MemoryError,)), device


def test_pixels_of_many_requests_cross_over_to_a_device_at_once(doubling):
    runner, device = doubling
    images = [runner.put(KEY, np.full((1, 3, 2, 2), row, np.float32)) for row in range(5)]

    features = run(runner, 0, *(FeatureRows(image, (0,)) for image in images))
    run(runner, 1, FeatureRows(features, (3, 1)))

    assert device.crossings == [(5, 3, 2, 2)]


def test_a_handle_knows_the_bytes_it_holds(doubling):
    runner, _ = doubling
    pixels = runner.put(KEY, np.zeros((4, 3, 2, 2), np.float32))

    features = run(runner, 0, FeatureRows(pixels, (0, 2, 3)))

    assert pixels.feature_bytes == 4 * 48
    assert features.feature_bytes == 3 * 64
