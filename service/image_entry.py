"""How one image asks for admission: by its headers, before it is decoded, and behind that."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.commands import ClassifyAnnounced, ClassifyCommand
from service.decode import Decoder
from service.engine.clock import Clock
from service.engine.door import EngineDoor, Handed
from service.engine.request import ExitLimits, Terms
from service.engine.reservation import Reservation
from service.errors import DeadlineInfeasible, Overloaded, RequestRejected
from service.lateness import refuse_late
from service.models import Model
from service.recent_refusals import RecentRefusals
from service.stopwatch import Stopwatch


class Case(NamedTuple):
    """One request while it is served."""

    command: ClassifyCommand
    model: Model
    limits: ExitLimits
    watch: Stopwatch
    began_at: float  # to be decoded


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """Asks the engine to admit single images, and words how it refuses them."""

    decoder: Decoder
    engine: EngineDoor
    clock: Clock
    soft_deadline_s: float  # when a request without a deadline counts as due, for ordering alone
    refusals: RecentRefusals = field(default_factory=RecentRefusals)  # of images that were here

    def announce(
        self, announced: ClassifyAnnounced, model: Model
    ) -> AbstractContextManager[Reservation | None]:
        """Admit a request by its headers and hold its place; see `ClassifyService.announce`.

        Raises:
            RequestRejected: There will be no answer in time, or no room.
        """
        now = self.clock.now()
        terms = self._announced_terms(announced, model, now + self.decoder.backlog_s())
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

    def foresee(self, case: Case) -> None:
        """Refuse an image before it is decoded, in times when many are refused behind that.

        At other times nobody is asked: it would be for nothing.

        Raises:
            RequestRejected: There would be no answer in time, or no room.
        """
        if not self.refusals.are_many:
            return
        command, limits = case.command, case.limits
        terms = Terms(
            case.model.key,
            1,
            self._due_at(command, limits),
            limits.deadline_at,
            limits.min_exit,
            arrived_at=command.arrived_at,
        )
        try:
            self.engine.check(terms)
        except DeadlineInfeasible as refused:
            self.refusals.note_refused()
            raise self._late(command, case.watch, refused) from refused
        except RequestRejected:
            self.refusals.note_refused()
            raise

    def submit(self, case: Case, inputs: NDArray[np.float32], place: Reservation | None) -> Handed:
        """Admit an image and hand it over, in one synchronous step.

        Args:
            case: Whose.
            inputs: Normalised pixels, shape ``(1, 3, H, W)``; not written to later.
            place: Charged when it was announced.

        Raises:
            RequestRejected: There would be no answer in time, or no room.
        """
        command, limits = case.command, case.limits
        try:
            ticket = self.engine.submit(
                case.model.key,
                inputs,
                limits,
                arrived_at=command.arrived_at,
                due_at=self._due_at(command, limits),
                reservation=place,
            )
        except DeadlineInfeasible as refused:
            self.refusals.note_refused()
            raise self._late(command, case.watch, refused) from refused
        except RequestRejected:
            self.refusals.note_refused()
            raise
        self.refusals.note_admitted()
        return ticket

    def _due_at(self, command: ClassifyCommand, limits: ExitLimits) -> float:
        deadline_at = limits.deadline_at
        return command.arrived_at + self.soft_deadline_s if deadline_at is None else deadline_at

    def _announced_terms(
        self, announced: ClassifyAnnounced, model: Model, ready_at: float
    ) -> Terms:
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
        # The engine knows what is left to do; the clock has run since the request arrived.
        return refuse_late(
            watch,
            deadline_s=asked.deadline_s or 0.0,
            work_s=refused.minimum_s,
            engine=self.engine,
            decoder=self.decoder,
        )
