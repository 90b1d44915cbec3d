"""The path of one request, in order. Start reading here."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from model_store.preprocessing import normalise
from service.commands import Classified, ClassifyAnnounced, ClassifyCommand
from service.decode import Decoder, ImageSize, Pixels
from service.engine.clock import Clock
from service.engine.door import EngineDoor, Handed
from service.engine.request import ExitLimits, Terms
from service.engine.reservation import Reservation
from service.errors import DeadlineInfeasible, Overloaded
from service.exit_limits import exit_limits
from service.lateness import refuse_late
from service.models import Model, Models
from service.stopwatch import Stopwatch, deadline_report


class _Case(NamedTuple):
    """One request while it is served."""

    command: ClassifyCommand
    model: Model
    limits: ExitLimits
    watch: Stopwatch
    began_at: float  # to be decoded


class Begun:
    """One image on its way through the network; belongs to the event loop.

    Args:
        case: What was asked.
        ticket: The engine's.
        answer_by: When the engine's timer is due; None without a deadline.
    """

    __slots__ = ("_answer_by", "_case", "_ticket", "outcome")

    def __init__(self, case: _Case, ticket: Handed, answer_by: float | None) -> None:
        self.outcome = ticket.outcome
        self._case = case
        self._ticket = ticket
        self._answer_by = answer_by

    def finish(self) -> Classified:
        """Return the answer, once `outcome` is done.

        Raises:
            InferenceFailed: There is none.
        """
        outcome = self.outcome.result()
        if outcome.error is not None:
            raise outcome.error
        if outcome.answer is None:
            raise ValueError("an image was settled with neither an answer nor an error")
        case = self._case
        model, timing = case.model, case.watch.timing(compute_s=outcome.compute_s)
        served = model.served
        return Classified(
            model=model.key,
            labels=model.bundle.manifest.labels,
            answer=outcome.answer,
            temperatures=served.temperatures,
            costs=served.costs,
            spent_macs=outcome.spent_macs,
            deadline=deadline_report(case.command.deadline_s, timing.total_s),
            timing=timing,
            answer_by=self._answer_by,
        )

    def abandon(self) -> None:
        """Run no further stage for it and free its place; does nothing once it is settled."""
        self._ticket.abandon()


@dataclass(frozen=True, slots=True)
class ClassifyService:
    """Answers for one image, from the deepest exit that its limits allow."""

    models: Models
    decoder: Decoder
    engine: EngineDoor
    clock: Clock
    soft_deadline_s: float  # when a request without a deadline counts as due, for ordering alone

    def announce(self, announced: ClassifyAnnounced) -> AbstractContextManager[Reservation | None]:
        """Admit a request by its headers, before its body is read; hold its place meanwhile.

        One without a deadline is only asked about: a client that never sends its body would
        otherwise keep others out for as long as it is waited for.

        Raises:
            RequestRejected: There will be no answer in time, or no room.
        """
        model = self.models.find(announced.model)
        now = self.clock.now()
        terms = self._terms(announced, model, ready_at=now + self.decoder.backlog_s())
        try:
            if announced.deadline_s is not None:
                return self.engine.reserve(terms)
            self.engine.check(terms)
        except DeadlineInfeasible as refused:
            received_s = now - announced.arrived_at
            watch = Stopwatch(
                self.clock, announced.arrived_at, received_s, held_up_s=announced.held_up_s
            )
            raise self._late(announced, watch, refused) from refused
        return nullcontext()

    def begin(self, command: ClassifyCommand) -> Begun | None:
        """Admit and hand over an image that can be decoded here and now; None: another.

        Admission is asked once, behind decoding: nothing comes between in one synchronous step.

        Raises:
            RequestRejected: The request was refused before any stage ran.
        """
        case = self._case(command)
        pixels = self._decoded_at_once(case)
        return None if pixels is None else self._submit(case, pixels, None)

    async def classify(
        self, command: ClassifyCommand, place: Reservation | None = None
    ) -> Classified:
        """Return the answer of the deepest exit the limits allow.

        Args:
            command: What is asked.
            place: Charged when it was announced; whoever announced it gives it back.

        Raises:
            RequestRejected: The request was refused before any stage ran.
            InferenceFailed: It was admitted and has no answer.
        """
        case = self._case(command)
        pixels = self._decoded_at_once(case)
        if pixels is not None:
            return await _finished(self._submit(case, pixels, place))
        # It waits for others' images now, so it is charged before and corrected behind that.
        with self.announce(_announced(command)) if place is None else nullcontext(place) as held:
            pixels = await self.decoder.decode_in_turn(
                command.upload, size=_size(case.model), worked=case.watch.decoder_worked
            )
            return await _finished(self._submit(case, pixels, held))

    def delivered(self, done: Classified) -> None:
        """Learn from an answer whose last byte was handed over how early answers must be ready."""
        if done.answer_by is not None:
            late_s = self.clock.now() - done.answer_by
            if late_s >= 0.0:
                self.engine.margin.observe(late_s)

    def _case(self, command: ClassifyCommand) -> _Case:
        model = self.models.find(command.model)
        watch = Stopwatch(
            self.clock, command.arrived_at, command.received_s, held_up_s=command.held_up_s
        )
        return _Case(command, model, exit_limits(command, model), watch, self.clock.now())

    def _decoded_at_once(self, case: _Case) -> Pixels | None:
        return self.decoder.decode_at_once(
            case.command.upload, size=_size(case.model), worked=case.watch.decoder_worked
        )

    def _submit(self, case: _Case, pixels: Pixels, place: Reservation | None) -> Begun:
        command, model, limits = case.command, case.model, case.limits
        image = model.bundle.manifest.input
        inputs = normalise(pixels[None], mean=image.mean, std=image.std)
        case.watch.decoded_since(case.began_at)
        due_at = limits.deadline_at
        try:
            ticket = self.engine.submit(
                model.key,
                inputs,
                limits,
                arrived_at=command.arrived_at,
                due_at=command.arrived_at + self.soft_deadline_s if due_at is None else due_at,
                reservation=place,
            )
        except DeadlineInfeasible as refused:
            # The engine knows what is left to do; the clock has run since the request arrived.
            raise self._late(command, case.watch, refused) from refused
        return Begun(case, ticket, self._answer_by(command))

    def _answer_by(self, command: ClassifyCommand) -> float | None:
        """Return when the engine's timer for a request handed over just now is due."""
        if command.deadline_s is None:
            return None
        margin_s = self.engine.margin.margin_s(command.deadline_s)
        return command.arrived_at + command.deadline_s - margin_s

    def _terms(self, announced: ClassifyAnnounced, model: Model, *, ready_at: float) -> Terms:
        arrived_at, deadline_s = announced.arrived_at, announced.deadline_s
        return Terms(
            model=model.key,
            num_images=1,
            due_at=arrived_at + (self.soft_deadline_s if deadline_s is None else deadline_s),
            deadline_at=None if deadline_s is None else arrived_at + deadline_s,
            mandatory_exit=announced.min_exit,
            arrived_at=arrived_at,
            ready_at=ready_at,
        )

    def _late(
        self,
        asked: ClassifyCommand | ClassifyAnnounced,
        watch: Stopwatch,
        refused: DeadlineInfeasible,
    ) -> DeadlineInfeasible | Overloaded:
        return refuse_late(
            watch,
            deadline_s=asked.deadline_s or 0.0,
            work_s=refused.minimum_s,
            engine=self.engine,
            decoder=self.decoder,
        )


def _size(model: Model) -> ImageSize:
    image = model.bundle.manifest.input
    return ImageSize(height=image.height, width=image.width)


def _announced(command: ClassifyCommand) -> ClassifyAnnounced:
    return ClassifyAnnounced(
        arrived_at=command.arrived_at,
        held_up_s=command.held_up_s,
        model=command.model,
        deadline_s=command.deadline_s,
        min_exit=command.min_exit,
    )


async def _finished(begun: Begun) -> Classified:
    """Wait for an answer; whoever is cancelled meanwhile frees its place."""
    try:
        await begun.outcome
    finally:
        begun.abandon()
    return begun.finish()
