"""Stages as TorchScript archives, for networks that ONNX cannot express. Archives are code.

The one module of the service that imports torch.
"""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.reader import Bundle
from service.backends.base import FeatureHandle, FeatureRows, ModelKey, StageKey, Ticket
from service.backends.devices import AUTO, CPU, Device, parse_device
from service.backends.selection import Selection
from service.backends.staged import LoadedModel, LoadedStage, StageRunner
from service.errors import BackendFailed

_TORCH_ERRORS = (RuntimeError, torch.jit.Error, ValueError, TypeError)
_Graph = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


class TorchScriptBackend:
    """Serves bundles of TorchScript archives.

    Args:
        bundles: By the key they are served under; opened by someone who trusts their authors.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for what is there.
        num_threads: Of torch, in the whole process.

    Raises:
        BackendFailed: An archive does not return what its manifest says (the message names the
            file), torch cannot load it, or the device is not there.
    """

    name = "torchscript"
    can_join = True

    def __init__(
        self, bundles: Mapping[ModelKey, Bundle], *, device: str, num_threads: int
    ) -> None:
        chosen = _resolve(device)
        torch.set_num_threads(num_threads)
        self.device = str(chosen)
        self._streams = _Streams(torch.device(self.device)) if chosen.is_cuda else None
        store = _TorchFeatures(torch.device(self.device))
        models = {key: _load(bundle, store.device) for key, bundle in bundles.items()}
        self._runner = StageRunner(models, store=store, errors=_TORCH_ERRORS)

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in pixels; see `StageBackend.put`."""
        return self._runner.put(model, inputs)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Run a stage; see `StageBackend.submit`."""
        if self._streams is not None:
            self._streams.take_own()
        return self._runner.submit(stage, parts, classify=classify)

    def close(self) -> None:
        """Let go of every archive."""
        self._runner.close()


class _Streams(threading.local):
    """A stream for each thread that submits, so that stages of two lanes run side by side.

    What one stream left another may read, and memory of one may serve the other: every stage is
    over before its features are handed on, and they live until the stage that reads them is over.
    """

    def __init__(self, device: torch.device) -> None:  # once in each thread, at its first use
        self._own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # in torch

    def take_own(self) -> None:
        """Have this thread's work go to its own stream."""
        torch.cuda.set_stream(self._own)


class _TorchFeatures:
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def put(self, array: NDArray[np.float32]) -> Tensor:
        # A tensor cannot be read-only, so torch warns of arrays that are.
        writable = array if array.flags.writeable else array.copy()
        return torch.from_numpy(writable).to(self.device)

    def fetch(self, tensor: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = tensor.cpu().numpy()
        return array

    @torch.inference_mode()
    def pick(self, tensors: Sequence[Tensor], selections: Sequence[Selection]) -> Tensor:
        picked = [self._rows(t, s) for t, s in zip(tensors, selections, strict=True) if s.rows]
        return picked[0] if len(picked) == 1 else torch.cat(picked)

    def _rows(self, tensor: Tensor, selection: Selection) -> Tensor:
        if selection.is_whole:
            return tensor
        if selection.is_run:
            return tensor[selection.start : selection.stop]
        return tensor.index_select(0, torch.from_numpy(selection.indices).to(self.device))


def _resolve(name: str) -> Device:
    num_devices = torch.cuda.device_count()
    if name == AUTO:
        return Device(is_cuda=True) if num_devices else CPU
    device = parse_device(name)
    if device.is_cuda and device.index >= num_devices:
        raise BackendFailed(f"{device}: torch finds {num_devices} such devices")
    return device


def _load(bundle: Bundle, device: torch.device) -> LoadedModel[Tensor]:
    manifest = bundle.manifest
    if manifest.runtime != "torchscript":
        raise BackendFailed(f"{bundle.path} is for {manifest.runtime}, not for torchscript")
    image_shape = (manifest.input.channels, manifest.input.height, manifest.input.width)
    # An archive does not say what it returns, so it is tried on an image.
    border: tuple[Tensor, ...] = (torch.zeros(1, *image_shape, device=device),)
    stages = []
    for stage in manifest.stages:
        trunk = _open(bundle.file(stage.trunk.file), device)
        classifier = _open(bundle.file(stage.classifier.file), device)
        shapes = [output.shape for output in stage.outputs]
        border = _tried(trunk, border, shapes, bundle.file(stage.trunk.file))
        reads = tuple(map(stage.output_names.index, stage.classifier_inputs))
        logits = [(len(manifest.labels),)]
        _tried(classifier, [border[i] for i in reads], logits, bundle.file(stage.classifier.file))
        stages.append(LoadedStage(trunk, classifier, reads, stage.output_bytes))
    return LoadedModel(image_shape, len(manifest.labels), tuple(stages))


def _open(path: Path, device: torch.device) -> _Graph:
    try:
        with _deprecation_ignored():
            loaded = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]  # in torch
        module = loaded.eval()
    except _TORCH_ERRORS as error:
        raise BackendFailed(f"{path}: cannot be opened on {device}: {error}") from error

    @torch.inference_mode()
    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        returned = module(*tensors)
        if device.type == "cuda":
            # Else a trunk without a classifier would seem to cost nothing.
            torch.cuda.current_stream(device).synchronize()
        return (returned,) if isinstance(returned, Tensor) else tuple(returned)

    return run


def _tried(
    graph: _Graph, tensors: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], path: Path
) -> tuple[Tensor, ...]:
    try:
        returned = graph(tensors)
    except _TORCH_ERRORS as error:
        raise BackendFailed(f"{path}: fails on one image: {error}") from error
    found = [(tensor.dtype, tuple(tensor.shape)) for tensor in returned]
    expected = [(torch.float32, (1, *shape)) for shape in shapes]
    if found != expected:
        raise BackendFailed(f"{path}: returns {found}, the manifest says {expected}")
    return returned


@contextmanager
def _deprecation_ignored() -> Iterator[None]:
    """Silence what TorchScript says of itself, and nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        yield
