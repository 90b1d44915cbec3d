"""A bundle's own graphs run over a whole set, so that what is served can be measured, too."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.manifest import INPUT_TENSOR, LOGITS_TENSOR, Graph
from model_store.preprocessing import normalise
from model_store.reader import Bundle
from training.data import ImageSet


def run_bundle_over(
    bundle: Bundle, images: ImageSet, *, batch_size: int = 250
) -> NDArray[np.float32]:
    """Return every exit's logits for every image, as ONNX Runtime computes them on the CPU.

    Args:
        bundle: Of ONNX graphs, not of code.
        images: Of the bundle's input size, in their own order.
        batch_size: Images run together.

    Returns:
        Shape ``(images, exits, classes)``.
    """
    stages = [
        (_open_graph(bundle, stage.trunk), _open_graph(bundle, stage.classifier))
        for stage in bundle.manifest.stages
    ]
    parts = []
    for indices in torch.split(torch.arange(len(images.labels)), batch_size):
        pixels = images.fetch(indices).permute(0, 2, 3, 1).numpy()
        image_input = bundle.manifest.input
        inputs = normalise(pixels, mean=image_input.mean, std=image_input.std)
        parts.append(_run_stages(bundle, stages, inputs))
    return np.concatenate(parts)


def _run_stages(
    bundle: Bundle, sessions: Sequence[tuple[Any, Any]], inputs: NDArray[np.float32]
) -> NDArray[np.float32]:
    features = {INPUT_TENSOR: inputs}
    logits = []
    for stage, (trunk, classifier) in zip(bundle.manifest.stages, sessions, strict=True):
        returned = trunk.run(stage.output_names, features)
        features = dict(zip(stage.output_names, returned, strict=True))
        reads = {name: features[name] for name in stage.classifier_inputs}
        logits.append(classifier.run([LOGITS_TENSOR], reads)[0])
    return np.stack(logits, axis=1)


def _open_graph(bundle: Bundle, graph: Graph) -> Any:  # noqa: ANN401 - onnxruntime carries no types
    # Imported here: who only trains needs no runtime.
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    # Each session has threads of its own; those that wait must not keep the cores from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path: Path = bundle.file(graph.file)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
