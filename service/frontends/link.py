"""A front end's end of its connection to an engine process, with the slots that the two share."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

from service.engine.request import ImageOutcome
from service.engine.reservation import Reservation
from service.frontends.slots import Slots
from service.frontends.wire import Document, Handlers, Kind, Wire
from service.shared_block import SharedBlock


class RemoteReservation(Reservation):
    """Room and time held in the engine process until it is left.

    Args:
        number: Of the link's.
        release: Gives it back.
    """

    __slots__ = ("_release", "number")

    def __init__(self, number: int, release: Callable[[int], None]) -> None:
        self.number = number
        self._release: Callable[[int], None] | None = release

    def release(self) -> None:
        """See `Reservation.release`."""
        release, self._release = self._release, None
        if release is not None:
            release(self.number)


def number_of(reservation: Reservation) -> int:
    """Return by which number the engine process knows a reservation.

    Raises:
        TypeError: An engine of this process gave it.
    """
    if not isinstance(reservation, RemoteReservation):
        raise TypeError("nothing can run under another engine's reservation")
    return reservation.number


@dataclass(slots=True)
class Waiting:
    """Somebody who waits for a slot."""

    outcome: "asyncio.Future[ImageOutcome]"
    num_classes: int
    mandatory_exit: int


class RemoteTicket:
    """One image that was handed over; see `Handed`.

    Attributes:
        outcome: How the image ended; never an exception, errors are part of the outcome.
    """

    __slots__ = ("_abandon", "outcome")

    def __init__(
        self, outcome: "asyncio.Future[ImageOutcome]", abandon: Callable[[], None]
    ) -> None:
        self.outcome = outcome
        self._abandon = abandon

    def abandon(self) -> None:
        """Run no further stage for it and free its place; does nothing once it is settled."""
        self._abandon()


@dataclass(slots=True)
class WaitingWindow:
    """Somebody who waits for a window."""

    outcomes: "asyncio.Future[tuple[ImageOutcome, ...]]"
    slots: Slots
    num_classes: int


class Link:
    """One connection to one engine process, with the slots that are shared with that one alone.

    Another engine gets other slots: the one before may be writing into these yet.

    Args:
        connection: To the engine.
        index: Of this front end.
        slots: Shared with it.
        block: They lie in.
        ended: Told once, when the engine is gone.
        welcomed: Told what it shows.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        index: int,
        slots: Slots,
        block: SharedBlock,
        ended: Callable[[], None],
        welcomed: Callable[[Document, int], None],
    ) -> None:
        self.slots = slots
        self.is_welcome = False
        self._ended = ended
        self._welcomed = welcomed
        self._free = list(range(slots.num_slots))
        self._waiting: dict[int, Waiting] = {}
        self._windows: dict[int, WaitingWindow] = {}
        self._ids = count(1)
        self.wire = Wire(
            connection,
            Handlers(
                frames={Kind.SETTLED: self._settled, Kind.WINDOW_DONE: self._window_done},
                documents={Kind.WELCOME: self._welcome},
                ended=self._end,
            ),
        )
        form = slots.form
        hello = {
            "front_end": index,
            "num_slots": slots.num_slots,
            "form": [form.num_exits, form.num_classes, form.num_values],
        }
        self.wire.send_document(Kind.HELLO, hello, block.fd)
        block.close_descriptor()

    @property
    def num_waiting(self) -> int:
        """Requests and windows whose outcome is not there."""
        return len(self._waiting) + len(self._windows)

    def take_slot(self) -> int | None:
        """Return a slot to fill in; None where all are taken."""
        return self._free.pop() if self._free else None

    def submit(self, slot: int, waiting: Waiting) -> RemoteTicket:
        """Hand over a slot that was filled in."""
        self._waiting[slot] = waiting
        self.wire.send(Kind.SUBMIT, slot)
        return RemoteTicket(waiting.outcome, partial(self._abandon, slot, waiting))

    def reserve(self, document: Document) -> RemoteReservation:
        """Have room and time held, until the reservation is released."""
        number = next(self._ids)
        self.wire.send_document(Kind.RESERVE, {"id": number, **document})
        return RemoteReservation(number, partial(self.wire.send, Kind.RELEASE))

    async def run_window(
        self, document: Document, slots: Slots, block: SharedBlock, num_classes: int
    ) -> tuple[ImageOutcome, ...]:
        """Have a window run and return its outcomes; cancelled, it runs no further stage."""
        window_id = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._windows[window_id] = WaitingWindow(future, slots, num_classes)
        self.wire.send_document(Kind.WINDOW, {"id": window_id, **document}, block.fd)
        block.close_descriptor()
        try:
            outcomes: tuple[ImageOutcome, ...] = await future
        finally:
            if self._windows.pop(window_id, None) is not None:
                self.wire.send(Kind.LEAVE, window_id)
        return outcomes

    def _abandon(self, slot: int, waiting: Waiting) -> None:
        if self._waiting.get(slot) is waiting:  # else it was settled, and the slot is another's
            self.wire.send(Kind.ABANDON, slot)

    def _welcome(self, document: Document, fd: int | None) -> None:
        if fd is not None:
            self.is_welcome = True
            self._welcomed(document, fd)

    def _settled(self, slot: int, _: float) -> None:
        waiting = self._waiting.pop(slot)
        if not waiting.outcome.done():
            waiting.outcome.set_result(self.slots.outcome(slot, waiting.num_classes))
        self._free.append(slot)

    def _window_done(self, window_id: int, _: float) -> None:
        window = self._windows.pop(window_id, None)
        if window is not None and not window.outcomes.done():
            slots = window.slots
            rows = range(slots.num_slots)
            window.outcomes.set_result(tuple(slots.outcome(k, window.num_classes) for k in rows))

    def _end(self) -> None:
        """Settle everybody with what he has: the engine is gone."""
        for slot, waiting in self._waiting.items():
            if not waiting.outcome.done():
                waiting.outcome.set_result(
                    self.slots.lost_outcome(
                        slot, waiting.num_classes, mandatory_exit=waiting.mandatory_exit
                    )
                )
        for window in self._windows.values():
            if not window.outcomes.done():
                slots, num_classes = window.slots, window.num_classes
                window.outcomes.set_result(
                    tuple(
                        slots.lost_outcome(k, num_classes, mandatory_exit=0)
                        for k in range(slots.num_slots)
                    )
                )
        self._waiting.clear()
        self._windows.clear()
        self._ended()
