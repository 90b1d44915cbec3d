"""Proof that what is exported computes what was trained, before anybody can open it."""

from collections.abc import Callable, Sequence
from importlib import import_module
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.manifest import LOGITS_TENSOR
from training.export_graphs import torchscript_deprecation_ignored
from training.export_stages import ExportRefused, ExportStage
from training.models.msdnet.network import MSDNet

MAX_DEVIATION = 1e-4  # of a logit, absolute, in float32

Array = NDArray[np.float32]
Runner = Callable[[Sequence[Array]], list[Array]]


def onnx_runner(graph: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> Runner:
    """Return an ONNX graph as a function of arrays, run by ONNX Runtime on the CPU."""
    # Imported here: who only trains needs no runtime.
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(arrays: Sequence[Array]) -> list[Array]:
        returned: list[Array] = session.run(list(outputs), dict(zip(inputs, arrays, strict=True)))
        return returned

    return run


def torchscript_runner(archive: bytes) -> Runner:
    """Return a TorchScript archive as a function of arrays."""
    with torchscript_deprecation_ignored():
        module = torch.jit.load(BytesIO(archive))  # type: ignore[no-untyped-call]  # in torch

    def run(arrays: Sequence[Array]) -> list[Array]:
        with torch.inference_mode():
            returned = module(*map(torch.from_numpy, arrays))
        return [t.numpy() for t in ([returned] if isinstance(returned, Tensor) else returned)]

    return run


def check_parity(
    network: MSDNet,
    stages: Sequence[ExportStage],
    runners: Sequence[tuple[Runner, Runner]],
    inputs: Array,
) -> float:
    """Run images through the exported stages, one after another, and through the whole network.

    Args:
        network: As it was trained; run in evaluation mode, batch norms and all.
        stages: What was exported, for the order of tensors.
        runners: Trunk and classifier of each stage.
        inputs: Normalised images, shape ``(B, 3, H, W)``; run at once and the first one alone.

    Returns:
        The largest deviation of a logit, absolute.

    Raises:
        ExportRefused: It is larger than `MAX_DEVIATION`, or a logit is not finite.
    """
    with torch.inference_mode():
        expected = [logits.numpy() for logits in network(torch.from_numpy(inputs))]
    largest = 0.0
    for num_images in sorted({1, len(inputs)}):
        found = staged_logits(stages, runners, inputs[:num_images])
        for exit_index, logits in enumerate(found):
            deviation = float(np.abs(logits - expected[exit_index][:num_images]).max())
            if not deviation <= MAX_DEVIATION:  # NaN is refused, too
                raise ExportRefused(
                    f"exit {exit_index}, {num_images} images: exported logits are off by "
                    f"{deviation:.2e}, allowed are {MAX_DEVIATION:.0e}"
                )
            largest = max(largest, deviation)
    return largest


def staged_logits(
    stages: Sequence[ExportStage], runners: Sequence[tuple[Runner, Runner]], inputs: Array
) -> list[Array]:
    """Return every exit's logits, each ``(B, classes)``, as the stages compute them in sequence."""
    features: Sequence[Array] = [inputs]
    logits = []
    for stage, (trunk, classifier) in zip(stages, runners, strict=True):
        features = trunk(features)
        if len(features) != len(stage.outputs):
            raise ExportRefused(f"a trunk returns {len(features)} tensors, not {stage.outputs}")
        logits.extend(classifier(features[-1:]))
    return logits


def runners_of(
    stages: Sequence[ExportStage], graphs: Sequence[tuple[bytes, bytes]], *, runtime: str
) -> list[tuple[Runner, Runner]]:
    """Open trunk and classifier of each stage with the runtime they were exported for."""
    if runtime == "torchscript":
        return [(torchscript_runner(trunk), torchscript_runner(head)) for trunk, head in graphs]
    return [
        (
            onnx_runner(trunk, stage.inputs, stage.outputs),
            onnx_runner(classifier, stage.outputs[-1:], [LOGITS_TENSOR]),
        )
        for stage, (trunk, classifier) in zip(stages, graphs, strict=True)
    ]
