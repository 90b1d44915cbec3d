"""A bundle's graphs put together again, and a bundle of random weights, for `stage_layout`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper

from model_store.calibration import Calibration
from model_store.manifest import LOGITS_TENSOR, ImageInput, Provenance, Stage
from model_store.reader import Bundle
from training.export import Description, export_bundle
from training.models.msdnet.network import MSDNet
from training.recipe import load_recipe

_RECIPE: Final = "cifar10_7exits_cpu"
_NUM_CLASSES: Final = 10


def random_bundle(root: Path) -> Path:
    """Export the default network with random weights, and a calibration that means nothing."""
    recipe = load_recipe(_RECIPE)
    network = MSDNet(recipe.network.shape(_NUM_CLASSES)).eval()
    size = recipe.network.image_size
    generator = np.random.default_rng(0)
    num_exits = len(recipe.network.exit_layers)
    logits = generator.normal(size=(_NUM_CLASSES, num_exits, _NUM_CLASSES))
    description = Description(
        name="random",
        version=1,
        labels=tuple(map(str, range(_NUM_CLASSES))),
        image_input=ImageInput(
            height=size, width=size, channels=3, mean=recipe.data.mean, std=recipe.data.std
        ),
        provenance=Provenance(
            recipe={},
            data_digest="",
            seed=0,
            versions={},
            results={},
            created_at=datetime.now(UTC),
            note="random weights",
        ),
    )
    calibration = Calibration.build(logits, np.arange(_NUM_CLASSES), 0)
    return export_bundle(network, description, calibration=calibration, root=root)


def logits_name(exit_index: int) -> str:
    """Return what an exit's logits are called in graphs that return several."""
    return f"{LOGITS_TENSOR}_{exit_index}"


def whole_graph(bundle: Bundle) -> onnx.ModelProto:
    """Return the whole network as one graph: pixels to every exit's logits."""
    stages = list(enumerate(bundle.manifest.stages))
    parts = [part for k, stage in stages for part in _parts(bundle, stage, k)]
    return _joined(parts, list(parts[0].graph.input), [logits_name(k) for k, _ in stages])


def stage_graph(bundle: Bundle, stage_index: int) -> onnx.ModelProto:
    """Return one stage as one graph: its trunk's outputs, then the logits."""
    stage = bundle.manifest.stages[stage_index]
    parts = _parts(bundle, stage, stage_index)
    outputs = [*stage.output_names, logits_name(stage_index)]
    return _joined(parts, list(parts[0].graph.input), outputs)


def _parts(bundle: Bundle, stage: Stage, stage_index: int) -> list[onnx.ModelProto]:
    trunk = onnx.load(bundle.file(stage.trunk.file))
    classifier = onnx.load(bundle.file(stage.classifier.file))
    _rename(trunk.graph, f"t{stage_index}.", {})
    _rename(classifier.graph, f"c{stage_index}.", {LOGITS_TENSOR: logits_name(stage_index)})
    return [trunk, classifier]


def _rename(graph: onnx.GraphProto, prefix: str, renamed: dict[str, str]) -> None:
    """Keep the names of what crosses the graph's border, and make all others its own."""
    kept = {tensor.name for tensor in (*graph.input, *graph.output)} - set(renamed)

    def name_of(name: str) -> str:
        return name if not name or name in kept else renamed.get(name, prefix + name)

    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [name_of(name) for name in node.input]
        node.output[:] = [name_of(name) for name in node.output]
    for entry in (*graph.initializer, *graph.output):
        entry.name = name_of(entry.name)


def _joined(
    parts: Sequence[onnx.ModelProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str]
) -> onnx.ModelProto:
    by_name = {tensor.name: tensor for part in parts for tensor in part.graph.output}
    graph = helper.make_graph(
        [node for part in parts for node in part.graph.node],
        "joined",
        inputs,
        [by_name[name] for name in outputs],
        [weight for part in parts for weight in part.graph.initializer],
    )
    first = parts[0]
    return helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)
