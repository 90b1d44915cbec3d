"""The path of one request, in order. Start reading here."""

from contextlib import AbstractContextManager, nullcontext

from model_store.preprocessing import normalise
from service.commands import Classified, ClassifyAnnounced, ClassifyCommand
from service.decode import Decoder, ImageSize, Pixels
from service.engine.clock import Clock
from service.engine.door import EngineDoor, Handed
from service.engine.reservation import Reservation
from service.exit_limits import exit_limits
from service.image_entry import Case, ImageEntry
from service.models import Model, Models
from service.stopwatch import Stopwatch, deadline_report


class Begun:
    """One image on its way through the network; belongs to the event loop.

    Args:
        case: What was asked.
        ticket: The engine's.
        answer_by: When the engine's timer is due; None without a deadline.
    """

    __slots__ = ("_answer_by", "_case", "_ticket", "outcome")

    def __init__(self, case: Case, ticket: Handed, answer_by: float | None) -> None:
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


class ClassifyService:
    """Answers for one image, from the deepest exit that its limits allow.

    Args:
        models: All that is served.
        decoder: Turns bytes into pixels.
        engine: Runs what it admits.
        clock: The one that requests' arrivals were read from.
        soft_deadline_s: When a request without a deadline counts as due, for ordering alone.
    """

    __slots__ = ("_clock", "_decoder", "_engine", "_entry", "_models")

    def __init__(
        self,
        models: Models,
        decoder: Decoder,
        engine: EngineDoor,
        clock: Clock,
        *,
        soft_deadline_s: float,
    ) -> None:
        self._models = models
        self._decoder = decoder
        self._engine = engine
        self._clock = clock
        self._entry = ImageEntry(decoder, engine, clock, soft_deadline_s)

    def announce(self, announced: ClassifyAnnounced) -> AbstractContextManager[Reservation | None]:
        """Admit a request by its headers, before its body is read; hold its place meanwhile.

        One without a deadline is only asked about: a client that never sends its body would
        otherwise keep others out for as long as it is waited for.

        Raises:
            RequestRejected: There will be no answer in time, or no room.
        """
        return self._entry.announce(announced, self._models.find(announced.model))

    def begin(self, command: ClassifyCommand) -> Begun | None:
        """Admit and hand over an image that can be decoded here and now; None: another.

        Admission is asked once, behind decoding: nothing comes between in one synchronous step. In
        times when it refuses many it is asked before, too, so that those are not decoded in vain.

        Raises:
            RequestRejected: The request was refused before any stage ran.
        """
        case = self._case(command)
        self._entry.foresee(case)
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
            pixels = await self._decoder.decode_in_turn(
                command.upload, size=_size(case.model), worked=case.watch.decoder_worked
            )
            return await _finished(self._submit(case, pixels, held))

    def delivered(self, done: Classified) -> None:
        """Learn from an answer whose last byte was handed over how early answers must be ready."""
        if done.answer_by is not None:
            late_s = self._clock.now() - done.answer_by
            if late_s >= 0.0:
                self._engine.margin.observe(late_s)

    def _case(self, command: ClassifyCommand) -> Case:
        model = self._models.find(command.model)
        watch = Stopwatch(
            self._clock, command.arrived_at, command.received_s, held_up_s=command.held_up_s
        )
        return Case(command, model, exit_limits(command, model), watch, self._clock.now())

    def _decoded_at_once(self, case: Case) -> Pixels | None:
        return self._decoder.decode_at_once(
            case.command.upload, size=_size(case.model), worked=case.watch.decoder_worked
        )

    def _submit(self, case: Case, pixels: Pixels, place: Reservation | None) -> Begun:
        image = case.model.bundle.manifest.input
        inputs = normalise(pixels[None], mean=image.mean, std=image.std)
        case.watch.decoded_since(case.began_at)
        ticket = self._entry.submit(case, inputs, place)
        return Begun(case, ticket, self._answer_by(case.command))

    def _answer_by(self, command: ClassifyCommand) -> float | None:
        """Return when the engine's timer for a request handed over just now is due."""
        if command.deadline_s is None:
            return None
        margin_s = self._engine.margin.margin_s(command.deadline_s)
        return command.arrived_at + command.deadline_s - margin_s


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
