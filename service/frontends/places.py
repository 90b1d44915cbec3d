"""What a front end has reserved, as the engine process keeps it."""

from service.engine.engine import Engine
from service.engine.request import Terms
from service.engine.reservation import Reservation
from service.errors import Overloaded, ServiceError


class Places:
    """Reservations of one front end, by the numbers it gave them. Belongs to the event loop.

    Args:
        engine: Where they are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._places: dict[int, Reservation | ServiceError] = {}

    def reserve(self, number: int, terms: Terms) -> None:
        """Have a place held; a refusal is told to the first who asks for it."""
        try:
            self._places[number] = self._engine.reserve(terms)
        except ServiceError as refused:
            self._places[number] = refused

    def find(self, number: int) -> Reservation:
        """Return a place.

        Raises:
            ServiceError: It was refused, or is there no more.
        """
        place = self._places.get(number)
        if place is None:
            raise Overloaded(retry_after_s=self._engine.retry_after_s())
        if isinstance(place, ServiceError):
            raise place
        return place

    def release(self, number: int) -> None:
        """Give a place back; does nothing where there is none."""
        place = self._places.pop(number, None)
        if isinstance(place, Reservation):
            place.release()

    def release_all(self) -> None:
        """Give all of them back."""
        for number in tuple(self._places):
            self.release(number)
