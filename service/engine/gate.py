"""Where cohorts are let in: prices what is asked and puts it to the ledger. Pure."""

from collections.abc import Mapping

from service.backends.base import ModelKey
from service.engine.admission import AdmissionLedger, Charge
from service.engine.first_answers import FirstAnswers
from service.engine.observer import Observer
from service.engine.pricing import PriceList
from service.engine.request import Terms
from service.errors import RequestRejected


class Gate:
    """Asks admission on behalf of callers. Mutable; guarded by the engine's lock.

    Args:
        ledger: Of all that is in flight.
        prices: Of everything that may be asked for.
        observer: Hears who did not come in.
        first_answers: Hears who will have none.
    """

    def __init__(
        self,
        ledger: AdmissionLedger,
        prices: Mapping[ModelKey, PriceList],
        observer: Observer,
        first_answers: FirstAnswers,
    ) -> None:
        self._ledger = ledger
        self._prices = prices
        self._observer = observer
        self._first_answers = first_answers

    def check(self, terms: Terms, now: float) -> None:
        """Ask without charging anything; raises what `AdmissionLedger.check` does."""
        try:
            self._ledger.check(self._prices[terms.model].claim(terms, now), now)
        except RequestRejected as refused:
            self._tell(terms, refused, now)
            raise

    def reserve(self, terms: Terms, now: float) -> Charge:
        """Charge what is asked, or refuse it; raises what `AdmissionLedger.check` does."""
        try:
            return self._ledger.admit(self._prices[terms.model].claim(terms, now), now)
        except RequestRejected as refused:
            self._tell(terms, refused, now)
            raise

    def correct(self, charge: Charge, terms: Terms, now: float) -> None:
        """Judge a charge anew once its pixels are there; who is refused is discharged.

        Raises:
            ValueError: It was released, so that there is no place left.
            DeadlineInfeasible: Not even an idle machine reaches the exit in time any more.
            Overloaded: The backlog has grown into its time.
        """
        if charge.is_released:
            raise ValueError("nothing can run under a reservation that was released")
        try:
            self._ledger.correct(charge, self._prices[terms.model].claim(terms, now), now)
        except RequestRejected as refused:
            self._tell(terms, refused, now)
            self._ledger.release(charge)
            raise

    def _tell(self, terms: Terms, refused: RequestRejected, now: float) -> None:
        self._observer.refused(refused)
        self._first_answers.refused(terms, refused, now)
