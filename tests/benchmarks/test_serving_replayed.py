import numpy as np
import pytest

from benchmarks.serving.bodies import numbered, numbers_of
from benchmarks.serving.replayed_backend import ReplayedBackend
from model_store.preprocessing import normalise
from service.backends.base import FeatureRows, ModelKey, StageKey
from service.backends.fake import FakeBackend, FakeModel

MODEL = ModelKey("m", "1")
LOGITS = np.arange(8 * 2 * 10, dtype=np.float32).reshape(8, 2, 10)


def inputs_of(*numbers: int) -> np.ndarray:
    pixels = np.stack([numbered(number) for number in numbers])
    return normalise(pixels, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def replayed() -> ReplayedBackend:
    model = FakeModel(confidences=(0.5, 0.9), number_of=lambda _image: 0)
    return ReplayedBackend(FakeBackend({MODEL: model}), LOGITS)


@pytest.mark.parametrize("number", [0, 1, 9999, 65535])
def test_an_image_keeps_its_number_through_normalisation(number):
    assert numbers_of(inputs_of(number, 7)).tolist() == [number, 7]


def test_every_image_gets_its_own_logits_at_every_exit_however_it_is_batched():
    backend = replayed()
    a, b = backend.put(MODEL, inputs_of(3, 5)), backend.put(MODEL, inputs_of(1))
    parts = [FeatureRows(b, (0,)), FeatureRows(a, (1, 0))]

    first = backend.submit(StageKey(MODEL, 0), parts, classify=(0, 2)).result()
    rest = [FeatureRows(first.features, (1, 2))]
    second = backend.submit(StageKey(MODEL, 1), rest, classify=(0, 1)).result()

    assert np.array_equal(first.logits, LOGITS[[1, 3], 0])
    assert np.array_equal(second.logits, LOGITS[[5, 3], 1])
