"""From a trained network and its calibration to a bundle that the server opens."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.calibration import Calibration
from model_store.layout import CALIBRATION_FILE, FORMAT_VERSION, GRAPHS_FOLDER
from model_store.manifest import (
    LOGITS_TENSOR,
    Compaction,
    Graph,
    ImageInput,
    ManifestDraft,
    Provenance,
    Stage,
    TensorSpec,
)
from model_store.writer import write_bundle
from training.export_graphs import concat_graph, gather_graph, onnx_graph, torchscript_archive
from training.export_parity import check_parity, runners_of
from training.export_stages import ExportRefused, ExportStage, msdnet_stages
from training.models.msdnet.network import MSDNet

Runtime = Literal["onnx", "torchscript"]

_RANDOM_IMAGES: Final = 3
_COMPACTION: Final = Compaction(
    gather=f"{GRAPHS_FOLDER}/gather.onnx", concat=f"{GRAPHS_FOLDER}/concat.onnx"
)


@dataclass(frozen=True, slots=True)
class Description:
    """What a bundle says of its network that the weights do not."""

    name: str
    version: int
    labels: tuple[str, ...]  # by class
    image_input: ImageInput
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class _ExportedStage:
    """The graphs of one stage, and what the manifest says of them."""

    entry: Stage
    trunk: bytes
    classifier: bytes


def export_bundle(
    network: MSDNet,
    description: Description,
    *,
    calibration: Calibration,
    root: Path,
    runtime: Runtime = "onnx",
    examples: NDArray[np.float32] | None = None,
) -> Path:
    """Write a network as a bundle, once its stages are found to compute what it does.

    Args:
        network: Trained; left as it is.
        description: Everything else for the manifest.
        calibration: Of this network.
        root: Of the model store.
        runtime: ``"torchscript"`` makes a bundle of code, which a server opens only if told to.
        examples: Normalised images, shape ``(B, 3, H, W)``, on which to compare, too; random ones
            are compared in any case.

    Returns:
        The bundle's directory.

    Raises:
        ExportRefused: The description is of another network, a stage cannot be exported, or its
            logits deviate.
        BundleError: As `model_store.writer.write_bundle`.
    """
    trained = deepcopy(network).cpu().float().eval()
    _check_description(trained, description)
    stages = msdnet_stages(trained)
    exported = [_export_stage(k, stage, runtime) for k, stage in enumerate(stages)]
    runners = runners_of(stages, [(e.trunk, e.classifier) for e in exported], runtime=runtime)
    for inputs in _compared_on(trained, examples):
        check_parity(trained, stages, runners, inputs)
    draft = _draft(description, exported, runtime)
    return write_bundle(root, draft, _files(draft, exported), calibration)


def _check_description(network: MSDNet, description: Description) -> None:
    shape, image = network.shape, description.image_input
    said = (len(description.labels), image.height, image.width)
    if said != (shape.num_classes, shape.image_size, shape.image_size):
        raise ExportRefused(
            f"the network tells {shape.num_classes} classes from images of "
            f"{shape.image_size}x{shape.image_size}, the description says {said[0]} and "
            f"{image.height}x{image.width}"
        )


def _compared_on(
    network: MSDNet, examples: NDArray[np.float32] | None
) -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    size = network.shape.image_size
    random = generator.standard_normal((_RANDOM_IMAGES, 3, size, size), dtype=np.float32)
    return [random] if examples is None else [random, examples]


def _export_stage(stage_index: int, stage: ExportStage, runtime: Runtime) -> _ExportedStage:
    read = stage.outputs[-1:]
    head_example = (stage.classifier_example,)
    with torch.no_grad():
        if runtime == "torchscript":
            suffix = "pt"
            trunk = torchscript_archive(stage.trunk, stage.example)
            head = torchscript_archive(stage.classifier, head_example)
        else:
            suffix = "onnx"
            trunk = onnx_graph(
                stage.trunk, stage.example, input_names=stage.inputs, output_names=stage.outputs
            )
            head = onnx_graph(
                stage.classifier, head_example, input_names=read, output_names=[LOGITS_TENSOR]
            )
    entry = Stage(
        trunk=Graph(file=_file(stage_index, "trunk", suffix), macs=stage.trunk_macs),
        outputs=tuple(
            TensorSpec(name=name, shape=shape)
            for name, shape in zip(stage.outputs, stage.output_shapes, strict=True)
        ),
        classifier=Graph(file=_file(stage_index, "classifier", suffix), macs=stage.classifier_macs),
        classifier_inputs=read,
    )
    return _ExportedStage(entry, trunk, head)


def _file(stage_index: int, part: str, suffix: str) -> str:
    return f"{GRAPHS_FOLDER}/s{stage_index:02d}-{part}.{suffix}"


def _draft(
    description: Description, exported: list[_ExportedStage], runtime: Runtime
) -> ManifestDraft:
    return ManifestDraft(
        format_version=FORMAT_VERSION,
        name=description.name,
        version=description.version,
        runtime=runtime,
        executable=runtime == "torchscript",
        labels=description.labels,
        input=description.image_input,
        stages=tuple(stage.entry for stage in exported),
        compaction=_COMPACTION if runtime == "onnx" else None,
        calibration=CALIBRATION_FILE,
        provenance=description.provenance,
    )


def _files(draft: ManifestDraft, exported: list[_ExportedStage]) -> dict[str, bytes]:
    trunks = {stage.entry.trunk.file: stage.trunk for stage in exported}
    classifiers = {stage.entry.classifier.file: stage.classifier for stage in exported}
    if draft.compaction is None:
        return trunks | classifiers
    compaction = {
        draft.compaction.gather: gather_graph(),
        draft.compaction.concat: concat_graph(),
    }
    return trunks | classifiers | compaction
