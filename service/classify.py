"""The path of one request, in order. Start reading here."""

from dataclasses import dataclass

from model_store.preprocessing import normalise
from service.commands import Classified, ClassifyCommand
from service.decode import Decoder, ImageSize
from service.engine.clock import Clock
from service.engine.engine import Engine
from service.engine.exit_policy import LoneRequestPolicy, affordable_exit
from service.engine.request import ExitLimits, ImageOutcome
from service.errors import BudgetTooSmall, DeadlineInfeasible, InvalidParameter, Overloaded
from service.lateness import refuse_late
from service.models import Model, Models
from service.stopwatch import Stopwatch, deadline_report


@dataclass(frozen=True, slots=True)
class ClassifyService:
    """Answers for one image, from the deepest exit that its limits allow."""

    models: Models
    decoder: Decoder
    engine: Engine
    clock: Clock
    soft_deadline_s: float  # when a request without a deadline counts as due, for ordering alone

    async def classify(self, command: ClassifyCommand) -> Classified:
        """Return the answer of the deepest exit the limits allow.

        Raises:
            RequestRejected: The request was refused before any stage ran.
            InferenceFailed: It was admitted and has no answer.
        """
        model = self.models.find(command.model)
        limits = _limits(command, model)
        watch = Stopwatch(self.clock, command.arrived_at, command.received_s, command.held_up_s)
        self._refuse_hopeless(command, model, limits, watch)
        with watch.decoding():
            image = model.bundle.manifest.input
            size = ImageSize(height=image.height, width=image.width)
            pixels = await self.decoder.decode(
                command.upload, size=size, worked=watch.decoder_worked
            )
            inputs = normalise(pixels[None], mean=image.mean, std=image.std)
        try:
            outcomes = await self.engine.run(
                model.key,
                inputs,
                self._policy(limits, model),
                due_at=limits.deadline_at or command.arrived_at + self.soft_deadline_s,
                deadline_at=limits.deadline_at,
                mandatory_exit=limits.min_exit,
                arrived_at=command.arrived_at,
            )
        except DeadlineInfeasible as refused:
            # The engine knows what is left to do; the clock has run since the request arrived.
            raise self._late(command, watch, refused.minimum_s) from refused
        return _classified(command, model, outcomes[0], watch)

    def _policy(self, limits: ExitLimits, model: Model) -> LoneRequestPolicy:
        due_s = 0.0 if limits.deadline_at is None else limits.deadline_at - self.clock.now()
        return LoneRequestPolicy(
            limits,
            model.served.costs,
            self.engine.times(model.key),
            margin_s=self.engine.limits.margin_s(due_s),
        )

    def _refuse_hopeless(
        self, command: ClassifyCommand, model: Model, limits: ExitLimits, watch: Stopwatch
    ) -> None:
        """Refuse what no server could do, before the image is decoded."""
        costs = model.served.costs
        if affordable_exit(limits, costs) is None:
            prices = costs.cumulative_macs if limits.looks_on_the_way else costs.direct_macs
            raise BudgetTooSmall(minimum_macs=prices[limits.min_exit])
        if command.deadline_s is None:
            return
        needed_s = self.engine.expected_exit_s(model.key, limits.min_exit, 1)
        if command.received_s + needed_s > command.deadline_s:
            raise self._late(command, watch, needed_s)

    def _late(
        self, command: ClassifyCommand, watch: Stopwatch, work_s: float
    ) -> DeadlineInfeasible | Overloaded:
        return refuse_late(
            watch,
            deadline_s=command.deadline_s or 0.0,
            work_s=work_s,
            engine=self.engine,
            decoder=self.decoder,
        )


def _limits(command: ClassifyCommand, model: Model) -> ExitLimits:
    last_exit = model.served.costs.num_exits - 1
    if command.min_exit > last_exit:
        raise InvalidParameter(
            f"min_exit is {command.min_exit}, the last exit is {last_exit}", parameter="min_exit"
        )
    deadline_s = command.deadline_s
    return ExitLimits(
        deadline_at=None if deadline_s is None else command.arrived_at + deadline_s,
        budget_macs=command.budget_macs,
        min_confidence=command.min_confidence,
        min_exit=command.min_exit,
        max_exit=last_exit if command.max_exit is None else min(command.max_exit, last_exit),
        every_classifier=command.detail,
    )


def _classified(
    command: ClassifyCommand, model: Model, outcome: ImageOutcome, watch: Stopwatch
) -> Classified:
    if outcome.error is not None:
        raise outcome.error
    if outcome.answer is None:
        raise ValueError("an image was settled with neither an answer nor an error")
    timing = watch.timing(compute_s=outcome.compute_s)
    return Classified(
        model=model.key,
        labels=model.bundle.manifest.labels,
        answer=outcome.answer,
        temperatures=model.served.temperatures,
        costs=model.served.costs,
        spent_macs=outcome.spent_macs,
        deadline=deadline_report(command.deadline_s, timing.total_s),
        timing=timing,
    )
