"""The inside of a lane process: takes jobs one after another, and runs them on what lies in memory.

What a stage leaves is written where the job says by the runtime itself, without a copy in between.
"""

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from model_store.manifest import LOGITS_TENSOR
from model_store.reader import Bundle
from service.backends.base import FeatureRows, ModelKey, StageKey
from service.backends.devices import CPU
from service.backends.host_rows import HostArray
from service.backends.onnx_features import HostFeatures, Session
from service.backends.onnx_graph import SessionFactory
from service.backends.onnx_runtime import build_runner, share_arena
from service.backends.processes.forms import BorderForm, forms_of
from service.backends.processes.jobs import DONE, MAX_BYTES, StageJob, failure
from service.errors import BackendFailed
from service.shared_block import SharedBlock


class ArenaFeatures(HostFeatures):
    """Arrays; what a trunk returns lies in the arena.

    Attributes:
        leave_at: Where the next trunk's first tensor is to lie.

    Args:
        block: The arena's.
    """

    def __init__(self, block: SharedBlock) -> None:
        self.leave_at = 0
        self._block = block
        self._address = np.frombuffer(block.buffer, dtype=np.uint8).ctypes.data

    def graph(
        self, session: Session, inputs: Sequence[str], outputs: Sequence[str]
    ) -> Callable[[Sequence[HostArray]], tuple[HostArray, ...]]:
        """Return a session as a function of arrays, in the order of the names."""
        if LOGITS_TENSOR in outputs:
            return super().graph(session, inputs, outputs)
        shape_of = {tensor.name: tuple(tensor.shape[1:]) for tensor in session.get_outputs()}
        left = BorderForm(tuple(shape_of[name] for name in outputs))
        names = tuple(outputs)

        def run(tensors: Sequence[HostArray]) -> tuple[HostArray, ...]:
            num_rows, begin = len(tensors[0]), self.leave_at
            binding = session.io_binding()
            for name, tensor in zip(inputs, tensors, strict=True):
                binding.bind_cpu_input(name, tensor)
            for name, (shape, at) in zip(names, left.places(begin, num_rows), strict=True):
                binding.bind_output(
                    name, "cpu", 0, np.float32, (num_rows, *shape), self._address + at
                )
            session.run_with_iobinding(binding)
            return left.tensors(self._block, begin, num_rows)

        return run


class Worker:
    """Runs the stages of some bundles on one core, or as many threads as it is given.

    Args:
        bundles: In the order by which jobs number them.
        block: Where features lie.
        num_threads: That one stage is spread over.

    Raises:
        BackendFailed: A graph is not what its manifest says.
    """

    def __init__(
        self, bundles: Mapping[ModelKey, Bundle], block: SharedBlock, *, num_threads: int
    ) -> None:
        self._keys = tuple(bundles)
        self._forms = forms_of(bundles)
        self._block = block
        self._features = ArenaFeatures(block)
        share_arena()
        self._runner = build_runner(bundles, SessionFactory(CPU, num_threads), self._features)

    def serve(self, connection: socket.socket) -> None:
        """Run what is asked for until the other side is gone."""
        # Whoever hangs up while a stage runs does not read how it went.
        with contextlib.suppress(ConnectionError):
            while frame := connection.recv(MAX_BYTES):
                connection.send(self._answer(frame))

    def _answer(self, frame: bytes) -> bytes:
        job = StageJob.unpack(frame)
        stage = StageKey(self._keys[job.model_index], job.stage_index)
        try:
            self._run(job, stage)
        except BackendFailed as error:
            return failure(str(error))
        return DONE

    def _run(self, job: StageJob, stage: StageKey) -> None:
        form = self._forms[stage.model]
        border = form.borders[job.stage_index]
        parts = []
        for offset, num_rows, rows in job.parts:
            tensors = border.tensors(self._block, offset, num_rows)
            handle = self._runner.adopt(stage, tensors, num_rows)
            parts.append(FeatureRows(handle, tuple(range(num_rows) if rows is None else rows)))
        self._features.leave_at = job.features_at
        output = self._runner.submit(stage, parts, classify=job.classify).result()
        logits = np.ndarray(
            (len(job.classify), form.num_classes),
            np.float32,
            self._block.buffer,
            job.logits_at,
        )
        logits[:] = output.logits
