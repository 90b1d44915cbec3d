"""What a batch's caller is told: a result for every image sent, and where the budget went."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from model_store.windows import BatchBudget
from service.commands import BatchCommand, BatchDone, BatchImage, BoundBy, BudgetReport
from service.decode import DecodedBatch
from service.engine.request import ImageOutcome
from service.models import Model
from service.plan import outlook
from service.stopwatch import Stopwatch, deadline_report


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch whose images are decoded and whose budget is planned."""

    command: BatchCommand
    model: Model
    decoded: DecodedBatch
    batch: BatchBudget  # spent as windows are opened; owned by whoever runs the job
    bound_by: BoundBy  # what made its budget as small as it is
    watch: Stopwatch

    @property
    def num_images(self) -> int:
        """M, the images that could be decoded."""
        return self.batch.plan.num_images


def report_batch(job: BatchJob, outcomes: Sequence[ImageOutcome]) -> BatchDone:
    """Return a finished batch as it is told.

    Args:
        job: What was run.
        outcomes: Of the decoded images, in order.
    """
    timing = job.watch.timing(compute_s=sum(outcome.compute_share_s for outcome in outcomes))
    return BatchDone(
        model=job.model.key,
        labels=job.model.bundle.manifest.labels,
        temperatures=job.model.served.temperatures,
        costs=job.model.served.costs,
        budget=_budget_report(job, outcomes),
        deadline=deadline_report(job.command.deadline_s, timing.total_s),
        skipped=job.command.upload.skipped,
        images=tuple(_images(job, outcomes)),
        timing=timing,
    )


def _images(job: BatchJob, outcomes: Sequence[ImageOutcome]) -> list[BatchImage]:
    rows = job.decoded.outcomes
    names = [part.filename for part in job.command.upload.parts] or [None] * len(rows)
    images = []
    for index, (filename, row) in enumerate(zip(names, rows, strict=True)):
        if isinstance(row, int):
            done = outcomes[row]
            images.append(BatchImage(index, filename, done.answer, done.error, done.spent_macs))
        else:
            images.append(BatchImage(index, filename, None, row, 0))
    return images


def _budget_report(job: BatchJob, outcomes: Sequence[ImageOutcome]) -> BudgetReport:
    answers = [outcome.answer for outcome in outcomes if outcome.answer is not None]
    counts = Counter(answer.record.exit_index for answer in answers)
    expected = outlook(
        job.model,
        job.batch.plan,
        job.command.policy,
        requested_macs=job.command.budget_macs,
        bound_by=job.bound_by,
        windows=job.batch.num_windows,
    )
    return BudgetReport(
        policy=expected.policy,
        regime=expected.regime,
        bound_by=expected.bound_by,
        requested_macs=expected.requested_macs,
        planned_macs=expected.planned_macs,
        q=expected.q,
        ratio=expected.ratio,
        exit_shares=expected.exit_shares,
        thresholds=expected.thresholds,
        windows=expected.windows,
        spent_macs=sum(outcome.spent_macs for outcome in outcomes),
        exit_counts=tuple(counts[k] for k in range(job.model.served.costs.num_exits)),
    )
