"""The path of one batch, in order: decode, plan, run window after window, report."""

from collections.abc import Sequence
from dataclasses import dataclass

from model_store.budget import BudgetInfeasible
from model_store.preprocessing import normalise
from model_store.windows import BatchBudget, BatchWindow
from service.batch_deadline import affordable_macs
from service.batch_report import BatchJob, report_batch
from service.commands import BatchCommand, BatchDone, BoundBy
from service.decode import DecodedBatch, Decoder, ImageSize
from service.engine.clock import Clock
from service.engine.door import EngineDoor, WindowRun
from service.engine.request import ImageOutcome, Terms
from service.engine.reservation import Reservation
from service.errors import BadRequest, BudgetTooSmall, DeadlineInfeasible, ImageUndecodable
from service.lateness import refuse_late
from service.models import Model, Models
from service.plan import bound_by_budget
from service.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True)
class BatchService:
    """Answers for many images that share a budget, and never spends more than that."""

    models: Models
    decoder: Decoder
    engine: EngineDoor
    clock: Clock
    window_size: int  # most images decided together
    soft_deadline_s: float  # when a batch without a deadline counts as due, for ordering alone

    async def classify(self, command: BatchCommand) -> BatchDone:
        """Return the answers of all images, each from the exit that the budget gave it.

        Raises:
            RequestRejected: The batch was refused before any stage ran.
            InferenceFailed: It was admitted, and none of its images has an answer.
        """
        model = self.models.find(command.model)
        watch = Stopwatch(self.clock, command.arrived_at, command.received_s, command.held_up_s)
        with watch.decoding():
            image = model.bundle.manifest.input
            size = ImageSize(height=image.height, width=image.width)
            decoded = await self.decoder.decode_batch(
                command.upload, size=size, worked=watch.decoder_worked
            )
        _refuse_without_images(decoded)
        job = self._plan(command, model, decoded, watch)
        with self._reserve(job) as reservation:
            outcomes = await self._run_windows(job, reservation)
        _raise_if_nobody_answered(outcomes)
        return report_batch(job, outcomes)

    def _plan(
        self, command: BatchCommand, model: Model, decoded: DecodedBatch, watch: Stopwatch
    ) -> BatchJob:
        """Solve eq. (3) for the smaller of the budget and what the deadline allows."""
        num_images = len(decoded.pixels)
        full_macs = num_images * model.served.costs.cumulative_macs[-1]
        budget_macs, bound_by = command.budget_macs, None
        if command.deadline_s is not None:
            executable_macs = self._executable_macs(command, model, num_images)
            if executable_macs < (
                full_macs if budget_macs is None else min(full_macs, budget_macs)
            ):
                budget_macs, bound_by = executable_macs, BoundBy.DEADLINE
        try:
            batch = BatchBudget(
                model.served.costs,
                model.holdout,
                num_images=num_images,
                budget_macs=budget_macs,
                policy_name=command.policy,
                window_size=min(self.window_size, self.engine.max_cohort(model.key)),
                every_classifier=command.detail or command.deadline_s is not None,
            )
        except BudgetInfeasible as refused:
            raise BudgetTooSmall(minimum_macs=refused.minimum_macs) from refused
        bound_by = bound_by or bound_by_budget(batch.plan)
        return BatchJob(command, model, decoded, batch, bound_by, watch)

    def _executable_macs(self, command: BatchCommand, model: Model, num_images: int) -> int:
        """Return how many MACs should be executed by the deadline, behind the present backlog."""
        due_at = command.arrived_at + (command.deadline_s or 0.0)
        due_s = due_at - self.clock.now()
        margin_s = self.engine.margin.margin_s(command.deadline_s or 0.0)
        macs = affordable_macs(
            model.served.costs,
            self.engine.times(model.key),
            num_images=num_images,
            available_s=due_s - margin_s - self.engine.backlog_s(),
            num_lanes=self.engine.num_lanes,
        )
        # Where not even exit 0 fits, admission says which refusal it is: never, or not now.
        return num_images * model.served.costs.cumulative_macs[0] if macs is None else macs

    def _reserve(self, job: BatchJob) -> Reservation:
        """Admit all windows at once: a batch that has begun is not refused halfway."""
        try:
            return self.engine.reserve(self._terms(job))
        except DeadlineInfeasible as refused:
            # The engine knows what is left to do; the clock has run since the request arrived.
            raise refuse_late(
                job.watch,
                deadline_s=job.command.deadline_s or 0.0,
                work_s=refused.minimum_s,
                engine=self.engine,
                decoder=self.decoder,
            ) from refused

    async def _run_windows(self, job: BatchJob, reservation: Reservation) -> list[ImageOutcome]:
        outcomes: dict[int, ImageOutcome] = {}
        while window := job.batch.open_window():
            num_after = job.num_images - len(outcomes) - len(window.images)
            done = await self._run_window(job, window, reservation, num_after=num_after)
            outcomes.update(zip(window.images, done, strict=True))
        return [outcomes[i] for i in range(job.num_images)]

    async def _run_window(
        self, job: BatchJob, window: BatchWindow, reservation: Reservation, *, num_after: int
    ) -> tuple[ImageOutcome, ...]:
        image = job.model.bundle.manifest.input
        pixels = job.decoded.pixels[list(window.images)]
        return await self.engine.run_window(
            job.model.key,
            normalise(pixels, mean=image.mean, std=image.std),
            self._window_run(job, window, num_after),
            reservation,
        )

    def _window_run(self, job: BatchJob, window: BatchWindow, num_after: int) -> WindowRun:
        """Give a window its share of the time that is left, as it has of the budget.

        One that overruns it is cut short only where later windows need the time to be answered.
        """
        terms = self._terms(job)
        share_s, share_ends_at, deadline_at = 0.0, None, terms.deadline_at
        if deadline_at is not None:
            now, num_images = self.clock.now(), len(window.images)
            share_s = (deadline_at - now) * num_images / (num_images + num_after)
            share_ends_at = now + share_s
            times = self.engine.times(job.model.key)
            rest_s = num_after * times.share_s(0, classify=True) / self.engine.num_lanes
            deadline_at = max(share_ends_at, deadline_at - rest_s)
        return WindowRun(
            window=window,
            policy_name=job.command.policy,
            arrived_at=job.command.arrived_at,
            due_at=terms.due_at,
            deadline_at=deadline_at,
            share_ends_at=share_ends_at,
            margin_s=self.engine.margin.margin_s(share_s),
        )

    def _terms(self, job: BatchJob) -> Terms:
        deadline_s, arrived_at = job.command.deadline_s, job.command.arrived_at
        due_s = self.soft_deadline_s if deadline_s is None else deadline_s
        return Terms(
            model=job.model.key,
            num_images=job.num_images,
            due_at=arrived_at + due_s,
            deadline_at=None if deadline_s is None else arrived_at + deadline_s,
            num_at_once=-(-job.num_images // job.batch.num_windows),
            arrived_at=arrived_at,
        )


def _refuse_without_images(decoded: DecodedBatch) -> None:
    if not decoded.outcomes:
        raise BadRequest("the batch holds no image")
    if not len(decoded.pixels):
        raise ImageUndecodable(f"none of the {len(decoded.outcomes)} images could be decoded")


def _raise_if_nobody_answered(outcomes: Sequence[ImageOutcome]) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if len(errors) == len(outcomes):
        raise errors[0]
