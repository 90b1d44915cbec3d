"""The path of one request, in order. Start reading here."""

from dataclasses import dataclass

from model_store.preprocessing import normalise
from service.commands import Classified, ClassifyCommand, DeadlineReport, Timing
from service.decode import Decoder
from service.engine.clock import Clock
from service.engine.engine import Engine
from service.engine.exit_policy import LoneRequestPolicy, affordable_exit
from service.engine.request import ExitLimits
from service.errors import BudgetTooSmall, DeadlineInfeasible, InvalidParameter
from service.models import Model, Models


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
        self._refuse_hopeless(command, model, limits)
        decoding_at = self.clock.now()
        pixels = await self.decoder.decode(command.upload, size=_size(model))
        decoded_at = self.clock.now()
        image = model.bundle.manifest.input
        try:
            outcomes = await self.engine.run(
                model.key,
                normalise(pixels[None], mean=image.mean, std=image.std),
                LoneRequestPolicy(limits, model.key, model.bundle.costs, self.engine.stage_costs),
                due_at=limits.deadline_at or command.arrived_at + self.soft_deadline_s,
                deadline_at=limits.deadline_at,
                mandatory_exit=limits.min_exit,
            )
        except DeadlineInfeasible as refused:
            # The engine knows what is left to do; the caller set the clock when he sent the image.
            before_s = decoded_at - command.arrived_at
            raise DeadlineInfeasible(minimum_s=before_s + refused.minimum_s) from refused
        outcome = outcomes[0]
        if outcome.answer is None:
            raise outcome.error
        return ...
