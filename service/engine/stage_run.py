"""One batch through the backend: rows of many handles in, a row and perhaps an answer each out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_store.confidence import max_softmax
from service.backends.base import (
    FeatureHandle,
    StageKey,
    StageOutput,
    StageSite,
    Ticket,
)
from service.engine.image import InFlightImage
from service.engine.member import Kind
from service.engine.request import ExitRecord, ServedModel
from service.engine.stage_inputs import parts_of, take_in
from service.errors import BackendFailed

_NO_FAILURES: Final[Mapping[int, str]] = {}


@dataclass(slots=True)
class StageRun:
    """A batch that a lane runs. Owned by the core; the lane only reads it."""

    lane: int
    stage: StageKey
    model: ServedModel
    images: Sequence[InFlightImage]  # sorted, so that a whole handle is never copied
    classify: Sequence[bool]  # of each, whether the classifier looks at it
    begun_at: float
    expected_s: float
    kind: Kind  # what its images were owed
    macs: int = 0  # of all of them
    pixels: Sequence[NDArray[np.float32] | None] = ()  # of stage 0: their cohorts' inputs

    @property
    def num_classified(self) -> int:
        """How many the classifier looks at."""
        return sum(self.classify)


@dataclass(slots=True)
class StageResult:
    """What a batch left. Positions are those of `StageRun.images`.

    Attributes:
        features: What the next stage reads; None behind the last, and where all failed.
        rows: Of the features, by position; None where they are the positions themselves.
        records: What the classifier said, by position.
        failures: Why an image failed, by position; whoever is not here went well.
        error: What the backend raised, where it gave up the whole batch.
        not_begun: Whose pixels it did not take, so that nothing ran for them.
    """

    features: FeatureHandle | None
    rows: Mapping[int, int] | None
    records: Mapping[int, ExitRecord]
    failures: Mapping[int, str] = field(default_factory=dict)
    error: BackendFailed | None = None
    not_begun: Collection[int] = ()


def in_row_order(
    images: Sequence[InFlightImage], classify: Sequence[bool]
) -> tuple[Sequence[InFlightImage], Sequence[bool]]:
    """Sort a batch by handle and row, so that a whole handle is never copied."""
    held, row = images[0].held, -1
    for image in images:
        if image.held is not held or image.row < row:
            break
        row = image.row
    else:
        return images, classify
    rank = {held: index for index, held in enumerate(dict.fromkeys(i.held for i in images))}
    pairs = sorted(
        zip(images, classify, strict=True), key=lambda pair: (rank[pair[0].held], pair[0].row)
    )
    return [image for image, _ in pairs], [is_classified for _, is_classified in pairs]


class StartedStage:
    """A batch that runs.

    Args:
        run: Which.
        ticket: The backend's.
        going: Positions of those it runs for.
        failures: Why others do not go on, by position.
    """

    __slots__ = ("_failures", "_going", "_run", "_ticket")

    def __init__(
        self, run: StageRun, ticket: Ticket, going: Sequence[int], failures: Mapping[int, str]
    ) -> None:
        self._run = run
        self._ticket = ticket
        self._going = going
        self._failures = failures

    def result(self) -> StageResult:
        """Wait for the stage and return what it left; never raises what the backend raises.

        An image whose logits are not finite failed; the others of the batch did not.
        """
        run = self._run
        try:
            output = self._ticket.result()
        except BackendFailed as error:
            return _failed(run, error)
        is_last = run.stage.stage_index == run.model.costs.num_exits - 1
        features = None if is_last else output.features
        return _result(run, output, self._going, self._failures, features=features)


def start_stage(site: StageSite, run: StageRun) -> StartedStage | StageResult:
    """Start a stage for the images of a batch; never raises what the backend raises.

    An image whose pixels the backend does not take has failed; the others of the batch have not.

    Returns:
        What came of it where it did not even start.
    """
    failures: Mapping[int, str] = _NO_FAILURES
    try:
        if run.stage.stage_index == 0:
            parts, failures = take_in(site, run.model.key, run.images, run.pixels)
            if not parts:
                return StageResult(None, None, {}, failures, not_begun=failures)
        else:
            parts = parts_of(run.images)
        going = [at for at in range(len(run.images)) if at not in failures]
        classify = tuple(row for row, at in enumerate(going) if run.classify[at])
        return StartedStage(run, site.submit(run.stage, parts, classify=classify), going, failures)
    except BackendFailed as error:
        return _failed(run, error)


def run_stage(site: StageSite, run: StageRun) -> StageResult:
    """Run a stage to its end; see `start_stage`."""
    started = start_stage(site, run)
    return started.result() if isinstance(started, StartedStage) else started


def _failed(run: StageRun, error: BackendFailed) -> StageResult:
    return StageResult(None, None, {}, dict.fromkeys(range(len(run.images)), str(error)), error)


def _result(
    run: StageRun,
    output: StageOutput,
    going: Sequence[int],
    failures: Mapping[int, str],
    *,
    features: FeatureHandle | None,
) -> StageResult:
    not_begun: Collection[int] = failures
    classified = [at for at in going if run.classify[at]]
    records = _records(run, output.logits, classified) if classified else {}
    if len(records) < len(classified):
        message = f"exit {run.stage.stage_index} gave logits that are not finite"
        broken = {at: message for at in classified if at not in records}
        failures = {**failures, **broken}
    rows = {at: row for row, at in enumerate(going)} if len(going) < len(run.images) else None
    return StageResult(features, rows, records, failures, not_begun=not_begun)


def _records(
    run: StageRun, logits: NDArray[np.float32], classified: Sequence[int]
) -> dict[int, ExitRecord]:
    """Return what the classifier said, by position; rows that are not finite are left out."""
    exit_index = run.stage.stage_index
    if not np.isfinite(logits).all():
        is_finite = np.asarray(np.isfinite(logits).all(axis=1))
        logits = logits[is_finite]
        classified = [at for at, keeps in zip(classified, is_finite.tolist(), strict=True) if keeps]
        if not classified:
            return {}
    confidences = max_softmax(logits, run.model.temperatures[exit_index]).tolist()
    return {
        at: ExitRecord(exit_index, scores, confidence)
        for at, scores, confidence in zip(classified, logits, confidences, strict=True)
    }
