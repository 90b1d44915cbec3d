"""Lanes' stages in processes of their own: the backend of a server on CPUs.

In one interpreter, lanes and event loop take it from each other at every step between two stages,
and a stage that should take 2 ms takes 5. Here a lane's thread only waits: what NumPy and the
runtime's bindings do in Python is done by an interpreter that nobody else wants.
"""

import queue
from collections.abc import Iterable, Mapping, Sequence
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
from service.backends.processes.arena import Arena, Place
from service.backends.processes.forms import ModelForm, aligned, forms_of
from service.backends.processes.jobs import Part, StageJob
from service.backends.processes.lane_process import LaneProcess
from service.backends.processes.orders import ServedBundle
from service.backends.requests import check_inputs, check_stage, model_of, select_rows
from service.backends.selection import select
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


# Not frozen, which would make them three times as slow to make; nobody writes to them.
@dataclass(slots=True, weakref_slot=True, eq=False)
class _Features:
    stage: StageKey  # that reads them
    place: Place
    num_rows: int
    feature_bytes: int


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
        self._forms = forms_of(bundles)
        self._index_of = {key: index for index, key in enumerate(bundles)}
        self._arena = Arena(_arena_bytes(self._forms.values(), options))
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
        self.lanes = tuple(_Lane(self, process) for process in self._processes)
        for lane in self.lanes:
            self._free.put(lane)
        self._start()

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Copy pixels to where lane processes see them; see `StageBackend.put`."""
        form = model_of(self._forms, model)
        check_inputs(inputs, image_shape=form.image_shape)
        border = form.borders[0]
        num_rows = len(inputs)
        place = self._arena.take(border.block_bytes(num_rows))
        (pixels,) = border.tensors(self._arena.block, place.offset, num_rows)
        pixels[:] = inputs
        return _Features(StageKey(model, 0), place, num_rows, num_rows * border.row_bytes)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Start a stage as soon as a lane is free; see `StageBackend.submit`.

        For whoever waits for it, before anybody drives the lanes.
        """
        lane = self._free.get()
        try:
            return _Borrowed(lane.submit(stage, parts, classify=classify), lane, self._free)
        except BackendFailed as error:
            self._free.put(lane)
            return Failed(error)

    def close(self) -> None:
        """Let all processes go."""
        for process in self._processes:
            process.close()

    def prepare(
        self, stage: StageKey, parts: Sequence[FeatureRows], classify: Sequence[int]
    ) -> "_Prepared":
        """Return what a process is told, once all is found in order; for lanes."""
        form = model_of(self._forms, stage.model)
        check_stage(stage, num_stages=form.num_stages)
        read = [_read_by(stage, part.handle) for part in parts]
        selections = select_rows(parts)
        num_rows = sum(len(selection.rows) for selection in selections)
        select(classify, of=num_rows)
        border = form.borders[stage.stage_index + 1]
        features_bytes = border.block_bytes(num_rows)
        place = self._arena.take(features_bytes + form.logits_bytes(len(classify)))
        job = StageJob(
            model_index=self._index_of[stage.model],
            stage_index=stage.stage_index,
            features_at=place.offset,
            logits_at=place.offset + features_bytes,
            parts=[
                Part(
                    features.place.offset,
                    features.num_rows,
                    None if selection.is_whole else selection.rows,
                )
                for features, selection in zip(read, selections, strict=True)
                if selection.rows
            ],
            classify=classify,
        )
        next_stage = StageKey(stage.model, stage.stage_index + 1)
        left = _Features(next_stage, place, num_rows, num_rows * border.row_bytes)
        return _Prepared(job, left, read)

    def output(self, prepared: "_Prepared") -> StageOutput:
        """Return what a stage left that is over; for lanes."""
        job = prepared.job
        form = self._forms[prepared.left.stage.model]
        logits = np.ndarray(
            (len(job.classify), form.num_classes),
            np.float32,
            self._arena.block.buffer,
            job.logits_at,
        )
        return StageOutput(prepared.left, logits.copy())

    def _start(self) -> None:
        try:
            for process in self._processes:
                process.start()
            for process in self._processes:
                process.wait_until_ready()
        except (BackendFailed, OSError):
            self.close()
            raise


class _Lane:
    """One process as a `StageLane`."""

    def __init__(self, backend: LaneProcesses, process: LaneProcess) -> None:
        self._backend = backend
        self._process = process
        self.put = backend.put

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Start a stage; see `StageLane.submit`."""
        prepared = self._backend.prepare(stage, parts, classify)
        self._process.send(prepared.job.pack())
        return _Running(self._backend, self._process, prepared)

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._process.fileno()

    def revive(self) -> None:
        """Start the process anew, without waiting for it."""
        self._process.start()

    def take_up(self) -> None:
        """Hear that it is ready."""
        self._process.wait_until_ready()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A job, and what must stay where it is until it is over."""

    job: StageJob
    left: _Features
    read: Sequence[_Features]


@dataclass(frozen=True, slots=True)
class _Running:
    """A stage that a process is busy with."""

    backend: LaneProcesses
    process: LaneProcess
    prepared: _Prepared

    def result(self) -> StageOutput:
        """Wait for it; see `Ticket.result`."""
        self.process.wait()
        return self.backend.output(self.prepared)


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


def _read_by(stage: StageKey, handle: FeatureHandle) -> _Features:
    if not isinstance(handle, _Features):
        raise BackendFailed(f"{type(handle).__name__} was not left by this backend")
    if handle.stage != stage:
        raise BackendFailed(
            f"features are for stage {handle.stage.stage_index} of {handle.stage.model}, "
            f"not {stage}"
        )
    return handle


def _arena_bytes(forms: Iterable[ModelForm], options: LaneProcessOptions) -> int:
    """Return the size of the arena; what is never touched of it takes no memory."""
    largest = max(border.row_bytes for form in forms for border in form.borders)
    return aligned(_ROUNDING * (options.max_feature_bytes + options.num_processes * largest))
