"""One ONNX graph of a bundle as a session, found to read and return what the manifest says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from service.backends.devices import Device
from service.errors import BackendFailed

# The runtime's exceptions have no base of their own.
ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_state.EPFail,
    ort_state.EngineError,
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.ModelRequiresCompilation,
    ort_state.NoModel,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
    RuntimeError,
    ValueError,
    MemoryError,
)
_ERRORS_ONLY = 3
_FLOAT = "tensor(float)"

Shapes = Mapping[str, tuple[int, ...]]  # by tensor name, per image


@dataclass(frozen=True, slots=True)
class Signature:
    """What the manifest says of a graph; every tensor has a free batch axis in front."""

    inputs: Shapes
    outputs: Shapes


class IdleThreads(Enum):
    """How threads wait for work: what it costs to wake them against what it costs to keep awake."""

    # Every session has threads of its own, which sleep between operators. The choice wherever
    # cores are shared with anything: an event loop, another process, a container's quota.
    SLEEP = "sleep"
    # One pool for all sessions of the process, which spins, for milliseconds after the last stage,
    # too; Python cannot tell it not to. Faster where nothing else wants the cores, several times
    # slower where something does: two threads that spin wait for a third that has no core.
    SPIN = "spin"


@dataclass(frozen=True, slots=True)
class SessionFactory:
    """Opens every graph of a backend the same way.

    Attributes:
        device: Where graphs run.
        num_threads: That one graph is spread over, if the device is the CPU.
        idle_threads: How they wait.
    """

    device: Device
    num_threads: int
    idle_threads: IdleThreads = IdleThreads.SLEEP

    def open(self, path: Path) -> onnxruntime.InferenceSession:
        """Return a session on the device, and on no other.

        Raises:
            BackendFailed: The file is no graph that the runtime reads, or the device is not there.
        """
        provider, settings = self._provider()
        if provider not in onnxruntime.get_available_providers():
            raise BackendFailed(f"{self.device}: this build of onnxruntime has no {provider}")
        try:
            # Told to fall back, the wrapper would print and go on with the CPU.
            session = onnxruntime.InferenceSession(
                str(path), self._options(), providers=[(provider, settings)], enable_fallback=0
            )
        except ORT_ERRORS as error:
            raise BackendFailed(f"{path}: cannot be opened on {self.device}: {error}") from error
        if provider not in session.get_providers():
            raise BackendFailed(f"{self.device}: onnxruntime opened {path} without {provider}")
        return session

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        num_threads = 1 if self.device.is_cuda else self.num_threads
        if self.idle_threads is IdleThreads.SPIN:
            _share_pool(num_threads)
            options.use_per_session_threads = False
        else:
            options.intra_op_num_threads = num_threads
            options.inter_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Arenas never shrink: one for all sessions grows to the largest stage, not to the sum.
        options.add_session_config_entry("session.use_env_allocators", "1")
        return options

    def _provider(self) -> tuple[str, dict[str, str]]:
        if not self.device.is_cuda:
            return "CPUExecutionProvider", {}
        settings = {
            "device_id": str(self.device.index),
            # The default tries every algorithm for each new batch size, for seconds.
            "cudnn_conv_algo_search": "HEURISTIC",
            # Thresholds were chosen on float32 logits; TF32 keeps 10 bits of the mantissa.
            "use_tf32": "0",
        }
        return "CUDAExecutionProvider", settings


@cache  # once a process: asked again for as many threads there is nothing to do
def _share_pool(num_threads: int) -> None:
    try:
        onnxruntime.set_global_thread_pool_sizes(num_threads, 1)
    except ORT_ERRORS as error:
        raise BackendFailed(
            f"a pool of {num_threads} threads is not to be had in this process any more: {error}"
        ) from error


def check_signature(
    session: onnxruntime.InferenceSession, signature: Signature, path: Path
) -> None:
    """Refuse a graph that is not what the manifest says.

    Raises:
        BackendFailed: A tensor is missing, too many, of another shape, or its batch size is fixed.
    """
    _check_tensors(session.get_inputs(), signature.inputs, f"{path}: reads")
    _check_tensors(session.get_outputs(), signature.outputs, f"{path}: returns")


def _check_tensors(found: Sequence[onnxruntime.NodeArg], expected: Shapes, subject: str) -> None:
    names = sorted(tensor.name for tensor in found)
    if names != sorted(expected):
        raise BackendFailed(f"{subject} {names}, the manifest says {sorted(expected)}")
    for tensor in found:
        shape = expected[tensor.name]
        is_free = bool(tensor.shape) and not isinstance(tensor.shape[0], int)
        if tensor.type != _FLOAT or not is_free or tuple(tensor.shape[1:]) != shape:
            raise BackendFailed(
                f"{subject} {tensor.name} as {tensor.type} {tensor.shape}, the manifest says "
                f"{_FLOAT} (any batch size, {', '.join(map(str, shape))})"
            )
