"""Stages as ONNX graphs, run by ONNX Runtime on CPUs or on an NVIDIA GPU."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Protocol, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model_store.manifest import INPUT_TENSOR, LOGITS_TENSOR
from model_store.reader import Bundle
from service.backends.base import FeatureHandle, FeatureRows, ModelKey, StageKey, Ticket
from service.backends.devices import AUTO, CPU, Device, parse_device
from service.backends.onnx_features import DeviceFeatures, HostFeatures, Session
from service.backends.onnx_graph import (
    ORT_ERRORS,
    IdleThreads,
    SessionFactory,
    Shapes,
    Signature,
    check_signature,
)
from service.backends.staged import LoadedModel, LoadedStage, StageRunner, TensorStore
from service.errors import BackendFailed

TensorT = TypeVar("TensorT")


class Placement(Enum):
    """Who holds features between stages."""

    HOST = "host"  # NumPy: rows are picked without the runtime
    DEVICE = "device"  # the runtime: rows are picked by graphs of a bundle


class OnnxRuntimeBackend:
    """Serves bundles of ONNX graphs.

    Args:
        bundles: By the key they are served under.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for what is there.
        num_threads: That one graph is spread over on the CPU; at least 1.
        idle_threads: How they wait for work.
        placement: Where features lie; None for what suits the device.

    Raises:
        BackendFailed: A graph is not what its manifest says (the message names the file), the
            runtime cannot run it, or the device is not there.
    """

    name = "onnxruntime"
    can_join = True

    def __init__(
        self,
        bundles: Mapping[ModelKey, Bundle],
        *,
        device: str,
        num_threads: int,
        idle_threads: IdleThreads = IdleThreads.SLEEP,
        placement: Placement | None = None,
    ) -> None:
        share_arena()
        chosen = find_device(device, bundles.values())
        sessions = SessionFactory(chosen, num_threads, idle_threads)
        on_device = placement is Placement.DEVICE or (placement is None and chosen.is_cuda)
        self.device = str(chosen)
        self._runner: StageRunner[NDArray[np.float32]] | StageRunner[onnxruntime.OrtValue] = (
            build_runner(bundles, sessions, _device_features(bundles, sessions))
            if on_device
            else build_runner(bundles, sessions, HostFeatures())
        )

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in pixels; see `StageBackend.put`."""
        return self._runner.put(model, inputs)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Run a stage; see `StageBackend.submit`."""
        return self._runner.submit(stage, parts, classify=classify)

    def close(self) -> None:
        """Close every session."""
        self._runner.close()


class GraphStore(TensorStore[TensorT], Protocol[TensorT]):
    """Where tensors lie, and how graphs run on them there."""

    def graph(
        self, session: Session, inputs: Sequence[str], outputs: Sequence[str]
    ) -> Callable[[Sequence[TensorT]], tuple[TensorT, ...]]:
        """Return a session as a function of tensors, in the order of the names."""
        ...


@cache  # once a process: the runtime's environment outlives its sessions
def share_arena() -> None:
    """Have all sessions of this process allocate from one arena; before the first is opened."""
    cpu = onnxruntime.OrtMemoryInfo(
        "Cpu",
        onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
        0,
        onnxruntime.OrtMemType.DEFAULT,
    )
    as_requested = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(cpu, as_requested)


def find_device(name: str, bundles: Iterable[Bundle]) -> Device:
    """Return the device of a name; of ``"auto"`` a GPU on which graphs open, else the CPU."""
    device = Device(is_cuda=True) if name == AUTO else parse_device(name)
    if not device.is_cuda:
        return device
    onnxruntime.preload_dlls()  # those that come as wheels are not where the loader looks
    if name == AUTO and not _opens(bundles, device):
        return CPU
    return device


def _opens(bundles: Iterable[Bundle], device: Device) -> bool:
    # A build for CUDA says that it has CUDA on machines without; only a session tells.
    sessions = SessionFactory(device, num_threads=1)
    for bundle in bundles:
        try:
            sessions.open(bundle.file(bundle.manifest.stages[0].trunk.file))
        except BackendFailed:
            return False
        return True
    return False


def _device_features(
    bundles: Mapping[ModelKey, Bundle], sessions: SessionFactory
) -> DeviceFeatures:
    # The graphs hold no weights, so those of one bundle serve all.
    for bundle in bundles.values():
        if compaction := bundle.manifest.compaction:
            return DeviceFeatures(
                sessions.device,
                gather=sessions.open(bundle.file(compaction.gather)),
                concat=sessions.open(bundle.file(compaction.concat)),
            )
    raise BackendFailed(f"{sessions.device}: no bundle has graphs to pick and join rows with")


def build_runner(
    bundles: Mapping[ModelKey, Bundle], sessions: SessionFactory, features: GraphStore[TensorT]
) -> StageRunner[TensorT]:
    """Return what runs the graphs of some bundles, with their tensors in a store.

    Raises:
        BackendFailed: A graph is not what its manifest says, or cannot be run.
    """
    models = {key: _load(bundle, sessions, features) for key, bundle in bundles.items()}
    return StageRunner(models, store=features, errors=ORT_ERRORS)


def _load(
    bundle: Bundle, sessions: SessionFactory, features: GraphStore[TensorT]
) -> LoadedModel[TensorT]:
    manifest = bundle.manifest
    if manifest.runtime != "onnx":
        raise BackendFailed(f"{bundle.path} is for {manifest.runtime}, not for onnxruntime")
    image_shape = (manifest.input.channels, manifest.input.height, manifest.input.width)
    num_classes = len(manifest.labels)

    def opened(
        file: str, reads: Shapes, returns: Shapes
    ) -> Callable[[Sequence[TensorT]], tuple[TensorT, ...]]:
        session = sessions.open(bundle.file(file))
        check_signature(session, Signature(reads, returns), bundle.file(file))
        return features.graph(session, list(reads), list(returns))

    stages = []
    border: Shapes = {INPUT_TENSOR: image_shape}
    for stage in manifest.stages:
        left = {output.name: output.shape for output in stage.outputs}
        read = {name: left[name] for name in stage.classifier_inputs}
        stages.append(
            LoadedStage(
                trunk=opened(stage.trunk.file, border, left),
                classifier=opened(stage.classifier.file, read, {LOGITS_TENSOR: (num_classes,)}),
                classifier_reads=tuple(map(list(left).index, read)),
                border_bytes=stage.output_bytes,
            )
        )
        border = left
    return LoadedModel(image_shape, num_classes, tuple(stages))
