"""Lanes' stages in processes of their own: the backend of a server on CPUs.

In one interpreter, lanes and event loop take it from each other at every step between two stages,
and a stage that should take 2 ms takes 5. Here a lane's thread only waits: what NumPy and the
runtime's bindings do in Python is done by an interpreter that nobody else wants.
"""

import queue
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_store.reader import Bundle
from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageKey,
    StageOutput,
    Ticket,
)
from service.backends.processes.arena import Arena
from service.backends.processes.batches import Batches, PreparedStage
from service.backends.processes.forms import ModelForm, aligned, forms_of
from service.backends.processes.lane_process import LaneProcess
from service.backends.processes.orders import ServedBundle
from service.backends.tickets import Failed
from service.errors import BackendFailed

_ROUNDING: Final = 2  # times what may be held: batches that end, and gaps between places


@dataclass(frozen=True, slots=True)
class LaneProcessOptions:
    """How lane processes run."""

    num_processes: int  # as many batches as will run at once
    num_threads: int = 1  # that one stage is spread over
    niceness: int = 0  # by how much they stand back for the event loop
    max_feature_bytes: int = 2**30  # that may be held between stages


class LaneProcesses:
    """Serves bundles of ONNX graphs on CPUs, each stage in one of several processes.

    Args:
        bundles: By the key they are served under.
        options: How many, and how they run.

    Raises:
        BackendFailed: A graph is not what its manifest says, or a process does not start.
    """

    name = "onnxruntime"
    device = "cpu"
    can_join = True

    def __init__(self, bundles: Mapping[ModelKey, Bundle], options: LaneProcessOptions) -> None:
        forms = forms_of(bundles)
        self._arena = Arena(_arena_bytes(forms.values(), options))
        self._batches = Batches(forms, self._arena)
        served = [
            ServedBundle(name=key.name, version=key.version, path=bundle.path.absolute())
            for key, bundle in bundles.items()
        ]
        self._processes = tuple(
            LaneProcess(
                index,
                served,
                arena=self._arena.block.fd,
                num_threads=options.num_threads,
                niceness=options.niceness,
            )
            for index in range(options.num_processes)
        )
        # The last that ran is taken first: its caches are warm.
        self._free: queue.LifoQueue[_Lane] = queue.LifoQueue()
        self.lanes = tuple(_Lane(self._batches, process) for process in self._processes)
        for lane in self.lanes:
            self._free.put(lane)
        self._start()

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Copy pixels to where lane processes see them; see `StageBackend.put`."""
        return self._batches.put(model, inputs)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Start a stage as soon as a lane is free; see `StageBackend.submit`.

        For whoever waits for it, before anybody drives the lanes: a lane is free again once
        somebody has asked for the result.
        """
        lane = self._free.get()
        try:
            return _Borrowed(lane.submit(stage, parts, classify=classify), lane, self._free)
        except BackendFailed as error:
            self._free.put(lane)
            return Failed(error)

    def close(self) -> None:
        """Let all processes go."""
        self._batches.close()
        for process in self._processes:
            process.close()
        self._arena.block.close_descriptor()

    def _start(self) -> None:
        with ExitStack() as undo:
            undo.callback(self.close)
            for process in self._processes:
                process.start()
            for process in self._processes:
                process.wait_until_ready()
            undo.pop_all()


class _Lane:
    """One process as a `StageLane`."""

    def __init__(self, batches: Batches, process: LaneProcess) -> None:
        self._batches = batches
        self._process = process
        self.put = batches.put

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Start a stage; see `StageLane.submit`."""
        prepared = self._batches.prepare(stage, parts, classify)
        self._process.send(prepared.job.pack())
        return _Running(self._batches, self._process, prepared)

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._process.fileno()

    def waited_s(self) -> float:
        """Return for how long the process had no core, as the kernel counts."""
        return self._process.waited_s()

    def revive(self) -> None:
        """Start the process anew, without waiting for it."""
        self._process.start()

    def take_up(self) -> None:
        """Hear that it is ready."""
        self._process.wait_until_ready()


@dataclass(frozen=True, slots=True)
class _Running:
    """A stage that a process is busy with."""

    batches: Batches
    process: LaneProcess
    prepared: PreparedStage

    def result(self) -> StageOutput:
        """Wait for it; see `Ticket.result`."""
        self.process.wait()
        return self.batches.output(self.prepared)


@dataclass(frozen=True, slots=True)
class _Borrowed:
    """A stage on a lane that is free again once somebody has its result."""

    ticket: Ticket
    lane: _Lane
    free: "queue.LifoQueue[_Lane]"

    def result(self) -> StageOutput:
        """Wait for it; see `Ticket.result`."""
        try:
            return self.ticket.result()
        finally:
            self.free.put(self.lane)


def _arena_bytes(forms: Iterable[ModelForm], options: LaneProcessOptions) -> int:
    """Return the size of the arena; what is never touched of it takes no memory."""
    largest = max(border.row_bytes for form in forms for border in form.borders)
    return aligned(_ROUNDING * (options.max_feature_bytes + options.num_processes * largest))
