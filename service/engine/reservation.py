"""Room and time for what was admitted and has not begun, or runs one after another."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from service.engine.admission import Charge


class Reservation(AbstractContextManager["Reservation"]):
    """A place that is held until it is left; only the engine that gave it runs anything in it.

    Belongs to the event loop.
    """

    __slots__ = ()

    @abstractmethod
    def release(self) -> None:
        """Give room and time back; a second time does nothing."""

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class ChargedReservation(Reservation):
    """One that an engine of this process gave.

    Args:
        charge: What admission charged.
        release: Discharges it.
    """

    __slots__ = ("_release", "charge")

    def __init__(self, charge: Charge, release: Callable[[Charge], None]) -> None:
        self.charge = charge
        self._release = release

    def release(self) -> None:
        """See `Reservation.release`."""
        self._release(self.charge)


def charge_of(reservation: Reservation) -> Charge:
    """Return what admission charged for a place.

    Raises:
        TypeError: An engine of another process gave it.
    """
    if not isinstance(reservation, ChargedReservation):
        raise TypeError("nothing can run under another engine's reservation")
    return reservation.charge
