"""The engine as a front end sees it: the same door, and the engine behind it in another process."""

import asyncio
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.backends.base import ModelKey
from service.engine.clock import Clock
from service.engine.door import WindowRun
from service.engine.observer import Observer
from service.engine.pricing import Claim
from service.engine.request import EngineLimits, ExitLimits, ImageOutcome, Terms
from service.engine.reservation import Reservation
from service.engine.stage_costs import StageCosts
from service.errors import Overloaded, RequestRejected
from service.frontends.finder import EngineFinder, FrontEnd
from service.frontends.link import RemoteReservation, RemoteTicket, Waiting, number_of
from service.frontends.remote_outlook import RemoteOutlook
from service.frontends.slot_form import SlotForm
from service.frontends.slots import SlotRequest, Slots
from service.frontends.window_terms import WindowTerms, follow
from service.frontends.wire import Kind
from service.models import Models


class RemoteEngine(RemoteOutlook):
    """Asks one engine process, and another when that one is gone; an `EngineDoor`.

    Belongs to the event loop.

    Args:
        models: Everything that may be asked for; the engine process serves the same.
        stage_costs: Empty; filled with what the engine process says.
        limits: How much may be in flight.
        clock: Monotonic, that of every process of this machine.
        observer: Hears of what is refused here.
        front_end: Which one this is.
    """

    def __init__(
        self,
        models: Models,
        *,
        stage_costs: StageCosts,
        limits: EngineLimits,
        clock: Clock,
        observer: Observer,
        front_end: FrontEnd,
    ) -> None:
        super().__init__(
            models, stage_costs=stage_costs, limits=limits, clock=clock, tell_late=self._tell_late
        )
        self._indices = {key: index for index, key in enumerate(self._models)}
        self._observer = observer
        self._finder = EngineFinder(
            front_end,
            SlotForm.for_all(models),
            num_slots=limits.max_in_flight,
            num_times=self._table.size,
            changed=self._look_at,
        )

    async def connect(self, limit_s: float) -> None:
        """Begin to look for an engine, for good, and return once there is one or time is up."""
        await self._finder.start(limit_s)

    async def close(self) -> None:
        """Let the engine go; whoever waits is settled as when it is lost."""
        await self._finder.close()

    def check(self, terms: Terms) -> None:
        """See `EngineDoor.check`."""
        self._admit(terms)

    def reserve(self, terms: Terms) -> RemoteReservation:
        """See `EngineDoor.reserve`; what the engine says is told to the first that comes."""
        link = self._finder.need_link()
        claim = self._admit(terms)
        self._admission.charge_sent(claim)
        return link.reserve(_written(terms, self._indices[terms.model]))

    def submit(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        limits: ExitLimits,
        *,
        arrived_at: float,
        due_at: float,
        reservation: Reservation | None = None,
    ) -> RemoteTicket:
        """See `EngineDoor.submit`."""
        link = self._finder.need_link()
        claim = None
        number = None if reservation is None else number_of(reservation)
        if number is None:
            claim = self._admit(
                Terms(model, 1, due_at, limits.deadline_at, limits.min_exit, arrived_at=arrived_at)
            )
        slot = link.take_slot()
        if slot is None:
            raise Overloaded(retry_after_s=self.retry_after_s())
        self._admission.charge_sent(claim)
        request = SlotRequest(self._indices[model], limits, arrived_at, due_at, number)
        link.slots.put_request(slot, request)
        link.slots.pixels[slot, : inputs.size] = inputs.reshape(-1)
        outcome = asyncio.get_running_loop().create_future()
        num_classes = len(self._models[model].bundle.manifest.labels)
        return link.submit(slot, Waiting(outcome, num_classes, limits.min_exit))

    async def run_window(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        run: WindowRun,
        reservation: Reservation,
    ) -> tuple[ImageOutcome, ...]:
        """See `EngineDoor.run_window`."""
        link = self._finder.need_link()
        slots, block = Slots.create(SlotForm.of(self._models[model]), len(inputs))
        slots.pixels[:] = inputs.reshape(len(inputs), -1)
        document = {
            "model": self._indices[model],
            "terms": WindowTerms.of(run).model_dump(mode="json"),
            "reservation": number_of(reservation),
        }
        num_classes = len(self._models[model].bundle.manifest.labels)
        outcomes = await link.run_window(document, slots, block, num_classes)
        follow(run.window.policy, outcomes)
        return outcomes

    def _admit(self, terms: Terms) -> Claim:
        now = self._clock.now()
        self._finder.need_link()
        self._refresh(now)
        claim = self._admission.claim(terms, now)
        try:
            self._admission.check(claim, now)
        except RequestRejected as error:
            self._observer.refused(error)
            raise
        return claim

    def _tell_late(self, late_s: float) -> None:
        link = self._finder.link
        if link is not None:
            link.wire.send(Kind.LATE, 0, late_s)


def _written(terms: Terms, model_index: int) -> dict[str, Any]:
    return {
        "model": model_index,
        "num_images": terms.num_images,
        "due_at": terms.due_at,
        "deadline_at": terms.deadline_at,
        "mandatory_exit": terms.mandatory_exit,
        "num_at_once": terms.num_at_once,
        "arrived_at": terms.arrived_at,
        "ready_at": terms.ready_at,
    }
