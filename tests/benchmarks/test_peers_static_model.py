"""What peers run reads the bodies that our own server reads, to the same pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serving.peers.static_graph import stored_graph
from benchmarks.serving.peers.static_model import PeerSpec, StaticModel
from model_store.reader import open_bundle

BUNDLE = Path("model_store/bundles/cifar10-msdnet/1")
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> PeerSpec:
    folder = tmp_path_factory.mktemp("peer")
    bundle = open_bundle(BUNDLE)
    wanted = bundle.manifest.input
    return PeerSpec(
        graph=str(stored_graph(bundle, 0, folder)),
        mean=wanted.mean,
        std=wanted.std,
        height=wanted.height,
        width=wanted.width,
        port=0,
        workers=1,
        threads=1,
        may_spin=False,
        max_batch_size=2,
        batch_wait_ms=0.0,
        timeout_ms=30.0,
        queue_size=8,
        front_ends=1,
        ready_folder=str(tmp_path_factory.mktemp("ready")),
    )


@pytest.fixture(scope="module")
def model(spec: PeerSpec) -> StaticModel:
    return StaticModel(spec)


def npy(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("body", [npy(PIXELS), png(PIXELS)], ids=["npy", "png"])
def test_a_body_of_the_networks_size_is_its_pixels(model: StaticModel, body: bytes):
    np.testing.assert_array_equal(model.decode(body), PIXELS)


@pytest.mark.parametrize("encode", [npy, png])
def test_a_body_of_another_size_is_fitted(model: StaticModel, encode):
    large = np.repeat(np.repeat(PIXELS, 2, axis=0), 3, axis=1)

    assert model.decode(encode(large)).shape == (32, 32, 3)


@pytest.mark.parametrize(
    "body",
    [b"", b"no picture", npy(PIXELS)[:-1], npy(PIXELS)[:20], npy(PIXELS[:, :, :2])],
    ids=["empty", "text", "cut pixels", "cut header", "two channels"],
)
def test_what_is_no_image_is_an_error(model: StaticModel, body: bytes):
    with pytest.raises((OSError, ValueError)):
        model.decode(body)


def test_an_image_has_the_same_label_alone_and_in_a_batch(model: StaticModel):
    other = PIXELS[::-1].copy()

    assert model.labels([PIXELS, other]) == [*model.labels([PIXELS]), *model.labels([other])]


def test_a_model_says_when_it_is_warm(spec: PeerSpec, model: StaticModel):
    assert [path.name.isdigit() for path in Path(spec.ready_folder).iterdir()] == [True]


def test_a_spec_survives_the_environment(spec: PeerSpec, monkeypatch: pytest.MonkeyPatch):
    for name, value in spec.environment().items():
        monkeypatch.setenv(name, value)

    assert PeerSpec.from_environment().environment() == spec.environment()
