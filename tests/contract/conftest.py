"""The network of `toy.toml` as every backend can serve it, and what it must answer."""

import io
import json
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

from model_store.calibration import Calibration
from model_store.manifest import ManifestDraft
from model_store.reader import Bundle, open_bundle
from model_store.writer import write_bundle
from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageBackend,
    StageKey,
    StageOutput,
)
from service.backends.fake import FakeBackend, FakeModel, numbered_images
from service.backends.onnx_runtime import OnnxRuntimeBackend, Placement
from service.backends.processes.backend import LaneProcesses, LaneProcessOptions
from service.backends.torchscript import TorchScriptBackend

TOY = tomllib.loads((Path(__file__).parent / "toy.toml").read_text(encoding="utf-8"))
KEY = ModelKey("toy", "1")
IMAGE_SHAPE = (3, 4, 4)
NUM_CLASSES = NUM_STAGES = 3

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Subject:
    """A backend under test, and what it must answer."""

    backend: StageBackend
    images: Callable[[int], Array]  # that many, all different
    expected: Callable[[Array], list[Array]]  # by exit, (B, classes)
    tolerance: float  # of a logit, absolute
    key: ModelKey = KEY
    num_stages: int = NUM_STAGES
    num_classes: int = NUM_CLASSES

    def put(self, inputs: Array) -> FeatureHandle:
        return self.backend.put(self.key, inputs)

    def run(
        self, stage_index: int, parts: Sequence[FeatureRows], classify: Sequence[int] = ()
    ) -> StageOutput:
        stage = StageKey(self.key, stage_index)
        return self.backend.submit(stage, parts, classify=classify).result()

    def answers(self, inputs: Array) -> list[Array]:
        """Return logits by exit of images that go through all stages together."""
        features = self.put(inputs)
        logits = []
        for stage_index in range(self.num_stages):
            output = self.run(stage_index, [whole(features)], range(len(inputs)))
            features = output.features
            logits.append(output.logits)
        return logits


class Trunk(nn.Module):
    """The trunks of `toy.toml` for torch."""

    def __init__(self, stage_index: int, weights: Mapping[str, Array]) -> None:
        super().__init__()
        self.stage_index = stage_index
        for name, values in weights.items():
            self.register_buffer(name, torch.from_numpy(values))

    def forward(self, a: Tensor, b: Tensor | None = None) -> tuple[Tensor, ...]:
        pooled = avg_pool2d(a, 2)
        if b is None:
            return self._conv(a, "w0a"), self._conv(pooled, "w0b")
        if self.stage_index == 1:
            left = torch.cat([a, self._conv(a, "w1a")], 1)
            return left, torch.cat([b, self._conv(pooled, "w1b")], 1)
        return (self._conv(torch.cat([b, pooled], 1), "w2"),)

    def _conv(self, tensor: Tensor, name: str) -> Tensor:
        return conv2d(tensor, self.get_buffer(name)).relu()


class Classifier(nn.Module):
    """The classifiers of `toy.toml` for torch."""

    def __init__(self, weights: Array) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat([tensor.mean(dim=(2, 3)) for tensor in tensors], 1) @ self.get_buffer(
            "weights"
        )


def whole(handle: FeatureHandle) -> FeatureRows:
    return FeatureRows(handle, tuple(range(handle.num_rows)))


def toy_weights() -> dict[str, Array]:
    generator = np.random.default_rng(7)
    return {
        name: generator.standard_normal(shape, dtype=np.float32)
        for name, shape in TOY["weights"].items()
    }


def onnx_file(text: str) -> bytes:
    """Return a graph, its weights added by name, as a file."""
    graph = onnx.parser.parse_graph(f"toy {text}")
    used = {name for node in graph.node for name in node.input}
    for name, values in toy_weights().items():
        if name in used:
            graph.initializer.append(numpy_helper.from_array(values, name))
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    return bytes(model.SerializeToString())


def torch_steps(inputs: Array) -> Iterator[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Yield trunk and classifier of each stage in turn, with what each of them reads."""
    weights = toy_weights()
    features: tuple[Tensor, ...] = (torch.from_numpy(inputs),)
    for stage_index, stage in enumerate(TOY["manifest"]["stages"]):
        trunk = Trunk(stage_index, weights)
        yield trunk, features
        features = trunk(*features)
        names = [output["name"] for output in stage["outputs"]]
        read = tuple(features[names.index(name)] for name in stage["classifier_inputs"])
        yield Classifier(weights[f"v{stage_index}"]), read


def reference_logits(inputs: Array) -> list[Array]:
    steps = list(torch_steps(inputs))
    return [classifier(*read).numpy() for classifier, read in steps[1::2]]


def archive(module: nn.Module, example: tuple[Tensor, ...]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        traced = torch.jit.trace(module, example)  # type: ignore[no-untyped-call]  # in torch
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def onnx_toy(root: Path, *, without_compaction: bool = False, **texts: str) -> Bundle:
    graphs: dict[str, str] = TOY["graphs"] | texts
    manifest: dict[str, Any] = dict(TOY["manifest"])
    if without_compaction:
        graphs = {name: text for name, text in graphs.items() if name[1:].isdigit()}
        manifest["compaction"] = None
    files = {f"graphs/{name}.onnx": onnx_file(text) for name, text in graphs.items()}
    return written(root, manifest, files)


def torchscript_toy(root: Path, **archives: bytes) -> Bundle:
    example = np.random.default_rng(0).standard_normal((2, *IMAGE_SHAPE), dtype=np.float32)
    names = [f"{kind}{stage_index}" for stage_index in range(NUM_STAGES) for kind in "tc"]
    files = {
        f"graphs/{name}.pt": archives.get(name) or archive(module, read)
        for name, (module, read) in zip(names, torch_steps(example), strict=True)
    }
    as_text = json.dumps(TOY["manifest"], default=str).replace(".onnx", ".pt")
    changed = {"runtime": "torchscript", "executable": True, "compaction": None}
    return written(root, json.loads(as_text) | changed, files)


def written(root: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
    provenance = manifest["provenance"] | {"note": None}
    draft = ManifestDraft.model_validate({**manifest, "provenance": provenance})
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((10, NUM_STAGES, NUM_CLASSES))
    calibration = Calibration.build(logits, generator.integers(0, NUM_CLASSES, 10), 0)
    return open_bundle(write_bundle(root, draft, files, calibration), allow_executable=True)


def fake_subject() -> Subject:
    confidences = {2: (0.6, 0.61, 0.62)}
    model = FakeModel((0.5, 0.7, 0.9), confidences, num_classes=3, image_shape=IMAGE_SHAPE)

    def expected(inputs: Array) -> list[Array]:
        numbers = [int(image.flat[0]) for image in inputs]
        return [np.stack([model.logits(n, k) for n in numbers]) for k in range(NUM_STAGES)]

    def images(num_images: int) -> Array:
        return numbered_images(range(num_images), shape=IMAGE_SHAPE)

    return Subject(FakeBackend({KEY: model}), images, expected, tolerance=0.0)


def real_subject(backend: StageBackend) -> Subject:
    def images(num_images: int) -> Array:
        generator = np.random.default_rng(num_images)
        return generator.standard_normal((num_images, *IMAGE_SHAPE), dtype=np.float32)

    # Sums of 14 products of order 1, added up in whatever order a batch size suggests.
    return Subject(backend, images, reference_logits, tolerance=1e-5)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def toy_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """By runtime."""
    return {
        "onnx": onnx_toy(tmp_path_factory.mktemp("onnx")),
        "torchscript": torchscript_toy(tmp_path_factory.mktemp("torchscript")),
    }


@pytest.fixture(scope="session")
def lane_processes(toy_bundles: dict[str, Bundle]) -> Iterator[Callable[[], LaneProcesses]]:
    """Return lane processes that many tests share, others once a test has closed them."""
    made: list[LaneProcesses] = []

    def get() -> LaneProcesses:
        if not made or made[-1].lanes[0].fileno() < 0:
            options = LaneProcessOptions(num_processes=2, max_feature_bytes=2**24)
            made.append(LaneProcesses({KEY: toy_bundles["onnx"]}, options))
        return made[-1]

    yield get
    for backend in made:
        backend.close()


@pytest.fixture(params=["fake", "onnx-host", "onnx-device-path", "lane-processes", "torchscript"])
def subject(
    request: pytest.FixtureRequest,
    toy_bundles: dict[str, Bundle],
    lane_processes: Callable[[], LaneProcesses],
) -> Iterator[Subject]:
    """Each backend in turn; the device path of ONNX Runtime with the CPU as its device."""
    bundles = {runtime: {KEY: bundle} for runtime, bundle in toy_bundles.items()}
    match request.param:
        case "fake":
            made = fake_subject()
        case "torchscript":
            made = real_subject(
                TorchScriptBackend(bundles["torchscript"], device="cpu", num_threads=1)
            )
        case "lane-processes":
            yield real_subject(lane_processes())
            return
        case kind:
            placement = Placement.HOST if kind == "onnx-host" else Placement.DEVICE
            backend = OnnxRuntimeBackend(
                bundles["onnx"], device="cpu", num_threads=1, placement=placement
            )
            made = real_subject(backend)
    yield made
    made.backend.close()


@pytest.fixture
def write_onnx_toy(tmp_path: Path) -> Callable[..., Bundle]:
    """Write the ONNX bundle, some graphs replaced by other text, and open it."""
    return lambda **changes: onnx_toy(tmp_path, **changes)


@pytest.fixture
def write_torchscript_toy(tmp_path: Path) -> Callable[..., Bundle]:
    """Write the TorchScript bundle, some graphs replaced by other modules, and open it."""

    def write(**modules: tuple[nn.Module, tuple[Tensor, ...]]) -> Bundle:
        return torchscript_toy(tmp_path, **{n: archive(*made) for n, made in modules.items()})

    return write
