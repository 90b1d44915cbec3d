"""One batch through the backend: rows of many handles in, a row and perhaps an answer each out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_store.confidence import max_softmax
from service.backends.base import FeatureRows, StageBackend, StageKey, StageOutput
from service.engine.cohort import InFlightCohort
from service.engine.request import ExitRecord
from service.engine.scheduler import QueuedMember


@dataclass(frozen=True, slots=True)
class Runner:
    """One image in a batch that runs."""

    cohort: InFlightCohort
    member: QueuedMember

    @property
    def macs(self) -> int:
        """Price of the stage, with its classifier where that runs."""
        costs = self.cohort.request.model.costs
        prices = costs.stage_macs if self.member.classify else costs.trunk_macs
        return prices[self.member.stage.stage_index]

    @property
    def features(self) -> FeatureRows:
        """What its stage reads."""
        return self.cohort.features(self.member.position)


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage left of one image: features, and an answer where its classifier ran."""

    runner: Runner
    features: FeatureRows | None  # None after the last stage, and of a failed image
    record: ExitRecord | None
    failure: str | None


def in_row_order(runners: Sequence[Runner]) -> list[Runner]:
    """Return the images sorted by handle and row, so that a whole handle is never copied."""
    handles = {id(runner.features.handle): None for runner in runners}
    rank = {handle_id: position for position, handle_id in enumerate(handles)}
    return sorted(
        runners, key=lambda runner: (rank[id(runner.features.handle)], runner.features.rows)
    )


def run_stage(
    backend: StageBackend, stage: StageKey, runners: Sequence[Runner]
) -> list[StageResult]:
    """Run a stage for images of one model and return what it left of each.

    An image whose logits are not finite failed; the others of the batch did not.

    Args:
        backend: Where to run.
        stage: Which.
        runners: In the order of `in_row_order`.

    Raises:
        BackendFailed: The stage failed for all of them.
    """
    classify = tuple(row for row, runner in enumerate(runners) if runner.member.classify)
    output = backend.submit(stage, _parts(runners), classify=classify).result()
    records = _records(output, stage, runners[0], classify)
    last_exit = runners[0].cohort.request.model.costs.num_exits - 1
    results = []
    for row, runner in enumerate(runners):
        features = FeatureRows(output.features, (row,)) if stage.stage_index < last_exit else None
        record = records.get(row)
        if runner.member.classify and record is None:
            message = f"exit {stage.stage_index} gave logits that are not finite"
            results.append(StageResult(runner, None, None, message))
        else:
            results.append(StageResult(runner, features, record, None))
    return results


def _parts(runners: Sequence[Runner]) -> list[FeatureRows]:
    rows_by_handle: dict[int, list[FeatureRows]] = {}
    for runner in runners:
        rows_by_handle.setdefault(id(runner.features.handle), []).append(runner.features)
    return [
        FeatureRows(several[0].handle, tuple(row for rows in several for row in rows.rows))
        for several in rows_by_handle.values()
    ]


def _records(
    output: StageOutput, stage: StageKey, runner: Runner, classify: Sequence[int]
) -> dict[int, ExitRecord]:
    """Return what the classifier said, by row; rows that are not finite are left out."""
    if not classify:
        return {}
    is_finite = np.asarray(np.isfinite(output.logits).all(axis=1))
    logits = output.logits[is_finite]
    temperature = runner.cohort.request.model.temperatures[stage.stage_index]
    confidences = max_softmax(logits, temperature).tolist() if len(logits) else []
    rows = np.asarray(classify)[is_finite].tolist()
    return {
        row: ExitRecord(stage.stage_index, scores, confidence)
        for row, scores, confidence in zip(rows, logits, confidences, strict=True)
    }
