"""One front end as the engine process knows it: what it asked, and what of that is on its way."""

import asyncio
import logging
import socket
from functools import partial
from typing import Protocol

from service.engine.engine import Engine
from service.engine.request import ExitRecord, ImageOutcome, Terms
from service.engine.ticket import Ticket
from service.engine.window_policy import WindowCohortPolicy
from service.errors import BackendFailed, EngineStopped, ServiceError
from service.frontends.board import MAX_FRONT_ENDS
from service.frontends.places import Places
from service.frontends.slot_form import SlotForm
from service.frontends.slots import Slots
from service.frontends.window_terms import WindowTerms
from service.frontends.wire import Document, Handlers, Kind, ProtocolBroken, Wire
from service.models import Model
from service.shared_block import SharedBlock

logger = logging.getLogger(__name__)


class Landlord(Protocol):
    """Where a guest came to; see `EngineHost`."""

    @property
    def engine(self) -> Engine: ...  # noqa: D102 - the class says it, here and below

    @property
    def models(self) -> tuple[Model, ...]: ...  # noqa: D102

    def welcome(self, guest: "Guest", front_end: int) -> None: ...  # noqa: D102

    def forget(self, guest: "Guest", front_end: int) -> None: ...  # noqa: D102

    def count_taken(self, front_end: int) -> None: ...  # noqa: D102

    def changed(self) -> None: ...  # noqa: D102


class Guest:
    """One front end that is connected. Mutable; belongs to the event loop.

    Args:
        host: Who it came to.
        connection: To it.
    """

    def __init__(self, host: Landlord, connection: socket.socket) -> None:
        self._host = host
        self._engine = host.engine
        self._front_end: int | None = None
        self._slots: Slots | None = None
        self._tickets: dict[int, Ticket] = {}
        self._windows: dict[int, asyncio.Task[None]] = {}
        self._places = Places(host.engine)
        self.wire = Wire(
            connection,
            Handlers(
                frames={
                    Kind.SUBMIT: self._submit,
                    Kind.ABANDON: self._abandon,
                    Kind.LEAVE: self._leave,
                    Kind.RELEASE: self._release,
                    Kind.LATE: self._late,
                },
                documents={
                    Kind.HELLO: self._hello,
                    Kind.RESERVE: self._reserve,
                    Kind.WINDOW: self._window,
                },
                ended=self._end,
            ),
        )

    def _hello(self, document: Document, fd: int | None) -> None:
        front_end = document["front_end"]
        if fd is None or not 0 <= front_end < MAX_FRONT_ENDS:
            raise ProtocolBroken("a front end came without memory, or with a number too large")
        form = SlotForm(*document["form"])
        if form != SlotForm.for_all(self._host.models):
            raise ProtocolBroken("a front end serves other models")
        self._slots = Slots(SharedBlock.attach(fd), form, document["num_slots"])
        self._front_end = front_end
        self._host.welcome(self, front_end)

    def _submit(self, slot: int, _: float) -> None:
        slots = self._known_slots()
        if slot >= slots.num_slots:
            raise ProtocolBroken(f"a front end asked in slot {slot} of {slots.num_slots}")
        asked = slots.request(slot)
        model = self._host.models[asked.model_index]
        try:
            ticket = self._engine.submit(
                model.key,
                slots.inputs(slot, model.served.input_shape),
                asked.limits,
                arrived_at=asked.arrived_at,
                due_at=asked.due_at,
                reservation=self._places.find(asked.reservation) if asked.reservation else None,
                heard=partial(_keep, slots, slot),
            )
        except ServiceError as refused:
            self._refuse(slot, refused)
        except ValueError as defect:
            logger.exception("front end %s asked for what no model does", self._front_end)
            self._refuse(slot, BackendFailed(str(defect)))
        else:
            self._tickets[slot] = ticket
            ticket.outcome.add_done_callback(partial(self._settled, slot))
        self._count_taken()

    def _refuse(self, slot: int, error: ServiceError) -> None:
        self._known_slots().put_outcome(slot, ImageOutcome(None, error, 0, 0.0, 0.0))
        self.wire.send(Kind.SETTLED, slot)

    def _settled(self, slot: int, outcome: "asyncio.Future[ImageOutcome]") -> None:
        if self._tickets.pop(slot, None) is None or self._slots is None:
            return
        if outcome.cancelled():
            ended = ImageOutcome(None, EngineStopped(), 0, 0.0, 0.0)
        else:
            ended = outcome.result()
        self._slots.put_outcome(slot, ended)
        self.wire.send(Kind.SETTLED, slot)
        self._host.changed()

    def _abandon(self, slot: int, _: float) -> None:
        ticket = self._tickets.pop(slot, None)
        if ticket is None:
            return  # settled meanwhile
        ticket.abandon()
        self._refuse(slot, EngineStopped())
        self._host.changed()

    def _reserve(self, document: Document, fd: int | None) -> None:
        del fd
        fields = dict(document)
        number, model = fields.pop("id"), self._host.models[fields.pop("model")]
        self._places.reserve(number, Terms(model.key, **fields))
        self._count_taken()

    def _release(self, number: int, _: float) -> None:
        self._places.release(number)
        self._host.changed()

    def _window(self, document: Document, fd: int | None) -> None:
        if fd is None:
            raise ProtocolBroken("a window came without its images")
        model = self._host.models[document["model"]]
        terms = WindowTerms.model_validate(document["terms"])
        slots = Slots(SharedBlock.attach(fd), SlotForm.of(model), terms.num_images)
        window_id = document["id"]
        task = asyncio.create_task(self._run_window(model, terms, slots, document))
        self._windows[window_id] = task
        task.add_done_callback(partial(self._window_ended, window_id, slots))

    async def _run_window(
        self, model: Model, terms: WindowTerms, slots: Slots, document: Document
    ) -> None:
        policy = WindowCohortPolicy(
            terms.start(model),
            self._engine.times(model.key),
            deadline_at=terms.share_ends_at,
            margin_s=terms.margin_s,
            num_lanes=self._engine.num_lanes,
        )
        try:
            outcomes = await self._engine.run(
                model.key,
                slots.pixels.reshape(terms.num_images, *model.served.input_shape),
                policy,
                reservation=self._places.find(document["reservation"]),
                arrived_at=terms.arrived_at,
                due_at=terms.due_at,
                deadline_at=terms.deadline_at,
                heard=slots.add_record,
            )
        except ServiceError as refused:
            outcomes = (ImageOutcome(None, refused, 0, 0.0, 0.0),) * terms.num_images
        for image, outcome in enumerate(outcomes):
            slots.put_outcome(image, outcome)

    def _window_ended(self, window_id: int, slots: Slots, task: "asyncio.Task[None]") -> None:
        self._windows.pop(window_id, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.error("a window of a batch failed by a defect", exc_info=error)
            for image in range(slots.num_slots):
                slots.put_outcome(image, ImageOutcome(None, EngineStopped(), 0, 0.0, 0.0))
        self.wire.send(Kind.WINDOW_DONE, window_id)
        self._host.changed()

    def _leave(self, window_id: int, _: float) -> None:
        task = self._windows.pop(window_id, None)
        if task is not None:
            task.cancel()

    def _late(self, _: int, late_s: float) -> None:
        self._engine.margin.observe(late_s)

    def _count_taken(self) -> None:
        if self._front_end is not None:
            self._host.count_taken(self._front_end)

    def _known_slots(self) -> Slots:
        if self._slots is None:
            raise ProtocolBroken("a front end asked before it had introduced itself")
        return self._slots

    def _end(self) -> None:
        tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            ticket.abandon()
        for task in tuple(self._windows.values()):
            task.cancel()
        self._places.release_all()
        if self._front_end is not None:
            self._host.forget(self, self._front_end)


def _keep(slots: Slots, slot: int, _: int, record: ExitRecord) -> None:
    """Leave in its slot what a classifier said, for the day that this process is killed."""
    slots.add_record(slot, record)
