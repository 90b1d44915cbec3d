"""A network that was exported computes what it did before, for the price that was named."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from model_store.calibration import Calibration
from model_store.errors import BundleExists, ExecutableRefused
from model_store.manifest import ImageInput, Provenance
from model_store.reader import Bundle, open_bundle
from service.backends.base import FeatureRows, ModelKey, StageBackend, StageKey
from service.backends.onnx_runtime import OnnxRuntimeBackend
from service.backends.torchscript import TorchScriptBackend
from training.export import Description, export_bundle
from training.export_stages import ExportRefused
from training.models.msdnet.cost import classifier_costs, trunk_costs
from training.models.msdnet.network import MSDNet
from training.models.msdnet.shape import MSDNetShape, Stem

KEY = ModelKey("small", "1")
# A transition after layer 3, where an exit sits; the finer scale is dropped there.
SHAPE = MSDNetShape(
    stem=Stem.CIFAR,
    image_size=16,
    num_classes=3,
    seed_units=4,
    growth_units=2,
    width_factors=(1, 2),
    bottleneck_factors=(1, 2),
    exit_layers=(2, 3),
    classifier_channels=8,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]  # torch's exporter takes its time


def small_network() -> MSDNet:
    """Return a network whose batch norms do something, as those of trained ones."""
    torch.manual_seed(0)
    network = MSDNet(SHAPE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.get_buffer("running_mean"))
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2.0)
    return network.eval()


def description() -> Description:
    return Description(
        name="small",
        version=1,
        labels=("ant", "bee", "cow"),
        image_input=ImageInput(height=16, width=16, channels=3, mean=(0, 0, 0), std=(1, 1, 1)),
        provenance=Provenance(
            recipe={"name": "small"},
            data_digest="none",
            seed=0,
            versions={},
            results={},
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            note=None,
        ),
    )


def calibration() -> Calibration:
    generator = np.random.default_rng(0)
    return Calibration.build(generator.normal(size=(10, 2, 3)), generator.integers(0, 3, 10), 0)


def images(num_images: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(num_images)
    return generator.standard_normal((num_images, 3, 16, 16), dtype=np.float32)


def staged(backend: StageBackend, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    features = backend.put(KEY, inputs)
    rows = tuple(range(len(inputs)))
    logits = []
    for stage_index in range(2):
        parts = [FeatureRows(features, rows)]
        output = backend.submit(StageKey(KEY, stage_index), parts, classify=rows).result()
        features = output.features
        logits.append(output.logits)
    return logits


def whole(network: MSDNet, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        return [logits.numpy() for logits in network(torch.from_numpy(inputs))]


def counted_macs(graph: bytes) -> int:
    """Count the multiply-accumulates of every convolution and product for one image."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.input:
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    for tensor in model.graph.output:
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shape_by_name = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    weight_by_name = {weight.name: list(weight.dims) for weight in inferred.initializer}
    macs = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            _, height, width = shape_by_name[node.output[0]][1:]
            macs += prod(weight_by_name[node.input[1]]) * height * width
        elif node.op_type in {"Gemm", "MatMul"}:
            macs += prod(weight_by_name[node.input[1]])
    return macs


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    return export_bundle(
        small_network(), description(), calibration=calibration(), root=root, examples=images(2)
    )


@pytest.fixture(scope="module")
def onnx_bundle(onnx_path: Path) -> Bundle:
    return open_bundle(onnx_path)


@pytest.fixture(scope="module")
def torchscript_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    return export_bundle(
        small_network(),
        description(),
        calibration=calibration(),
        root=root,
        runtime="torchscript",
    )


@pytest.mark.parametrize("num_images", [1, 2, 7])
def test_exported_stages_answer_as_the_network_does(onnx_bundle: Bundle, num_images: int):
    backend = OnnxRuntimeBackend({KEY: onnx_bundle}, device="cpu", num_threads=1)
    inputs = images(num_images)

    found = staged(backend, inputs)

    for logits, expected in zip(found, whole(small_network(), inputs), strict=True):
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("num_images", [1, 5])
def test_torchscript_stages_answer_as_the_network_does(torchscript_path: Path, num_images: int):
    bundle = open_bundle(torchscript_path, allow_executable=True)
    backend = TorchScriptBackend({KEY: bundle}, device="cpu", num_threads=1)
    inputs = images(num_images)

    found = staged(backend, inputs)

    for logits, expected in zip(found, whole(small_network(), inputs), strict=True):
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_a_bundle_of_torchscript_is_opened_by_those_only_who_run_code(torchscript_path: Path):
    with pytest.raises(ExecutableRefused):
        open_bundle(torchscript_path)


def test_a_graph_computes_exactly_the_macs_that_the_manifest_names(onnx_bundle: Bundle):
    stages = onnx_bundle.manifest.stages
    graphs = [graph for stage in stages for graph in (stage.trunk, stage.classifier)]

    counted = [counted_macs(onnx_bundle.file(graph.file).read_bytes()) for graph in graphs]

    assert counted == [graph.macs for graph in graphs]


def test_stages_compute_no_more_than_lazy_evaluation_needs(onnx_bundle: Bundle):
    trunks = tuple(cost.macs for cost in trunk_costs(SHAPE))
    classifiers = tuple(cost.macs for cost in classifier_costs(SHAPE))

    costs = onnx_bundle.costs

    assert (costs.trunk_macs, costs.classifier_macs) == (trunks, classifiers)


def test_a_stage_reads_what_the_one_before_returns(onnx_bundle: Bundle):
    stages = onnx_bundle.manifest.stages

    reads = [
        {tensor.name for tensor in onnx.load(onnx_bundle.file(stage.trunk.file)).graph.input}
        for stage in stages
    ]

    assert reads[0] == {"pixels"}
    for (before, _), (_, read) in pairwise(zip(stages, reads, strict=True)):
        assert read == set(before.output_names)
    assert stages[0].output_names == ("s0_scale0", "s0_scale1")
    assert stages[-1].output_names == ("s1_scale1",)


def test_graphs_hold_their_weights_and_nothing_of_where_they_were_made(onnx_bundle: Bundle):
    here = str(Path(__file__).parents[2]).encode()

    for name in onnx_bundle.manifest.graph_files:
        content = onnx_bundle.file(name).read_bytes()
        graph = onnx.load_from_string(content).graph

        assert here not in content
        assert not any(weight.external_data for weight in graph.initializer)
        assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_the_network_is_left_as_it_was(tmp_path: Path):
    network = small_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    export_bundle(
        network,
        description(),
        calibration=calibration(),
        root=tmp_path,
        runtime="torchscript",
    )

    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_version_is_written_once(torchscript_path: Path):
    with pytest.raises(BundleExists):
        export_bundle(
            small_network(),
            description(),
            calibration=calibration(),
            root=torchscript_path.parents[1],
            runtime="torchscript",
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda d: replace(d, labels=("ant", "bee")),
        lambda d: replace(d, image_input=d.image_input.model_copy(update={"width": 32})),
    ],
    ids=["labels", "image size"],
)
def test_a_description_of_another_network_is_refused(
    tmp_path: Path, change: Callable[[Description], Description]
):
    with pytest.raises(ExportRefused, match="tells 3 classes from images of 16x16"):
        export_bundle(
            small_network(), change(description()), calibration=calibration(), root=tmp_path
        )


def test_a_network_whose_logits_are_no_numbers_is_refused(tmp_path: Path):
    network = small_network()
    nn.init.constant_(network.get_parameter("classifiers.1.linear.bias"), float("nan"))

    with pytest.raises(ExportRefused, match="exit 1, 1 images: exported logits are off by nan"):
        export_bundle(
            network,
            description(),
            calibration=calibration(),
            root=tmp_path,
            runtime="torchscript",
        )

    assert not list(tmp_path.iterdir())
