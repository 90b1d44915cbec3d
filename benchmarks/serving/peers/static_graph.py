"""The network up to one exit as one graph: what a server that knows no exits is given."""

from pathlib import Path
from typing import Final

import onnx
from onnx import compose
from onnx.utils import Extractor

from model_store.manifest import INPUT_TENSOR, LOGITS_TENSOR
from model_store.reader import Bundle

_DIGEST_CHARACTERS: Final = 12


def static_graph(bundle: Bundle, exit_index: int) -> onnx.ModelProto:
    """Return pixels → logits of one exit; other classifiers and what only they read are pruned.

    Raises:
        IndexError: The bundle has no such exit.
    """
    stages = bundle.manifest.stages
    if not 0 <= exit_index < len(stages):
        raise IndexError(f"exit {exit_index} of a bundle that has {len(stages)}")
    joined = _part(bundle, stages[0].trunk.file, "t0.")
    for k in range(1, exit_index + 1):
        trunk = _part(bundle, stages[k].trunk.file, f"t{k}.")
        names = {tensor.name.removeprefix(f"t{k}."): tensor.name for tensor in trunk.graph.input}
        joined = compose.merge_models(
            joined, trunk, [(f"t{k - 1}.{name}", prefixed) for name, prefixed in names.items()]
        )
    last = stages[exit_index]
    classifier = _part(bundle, last.classifier.file, "c.")
    ends = [(f"t{exit_index}.{name}", f"c.{name}") for name in last.classifier_inputs]
    joined = compose.merge_models(joined, classifier, ends)
    return Extractor(joined).extract_model([f"t0.{INPUT_TENSOR}"], [f"c.{LOGITS_TENSOR}"])


def stored_graph(bundle: Bundle, exit_index: int, folder: Path) -> Path:
    """Return the file of that graph in a work folder, made where it is not there yet."""
    name = f"{bundle.digest[:_DIGEST_CHARACTERS]}-exit{exit_index}.onnx"
    path = folder / name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        onnx.save(static_graph(bundle, exit_index), part)
        part.replace(path)
    return path


def _part(bundle: Bundle, file: str, prefix: str) -> onnx.ModelProto:
    """Return one graph of the bundle with every name its own."""
    return compose.add_prefix(onnx.load(bundle.file(file)), prefix)
