"""Where cohorts are let in: prices what is asked, puts it to the ledger, tells the observer."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

from service.backends.base import ModelKey
from service.engine.admission import Charge, Claim, claim_for
from service.engine.clock import Clock
from service.engine.in_flight import InFlight
from service.engine.observer import Observer
from service.engine.request import EngineLimits, ServedModel, Terms
from service.engine.stage_costs import StageCosts
from service.errors import RequestRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Asks admission on behalf of callers; belongs to the event loop."""

    models: Mapping[ModelKey, ServedModel]
    limits: EngineLimits
    stage_costs: StageCosts
    in_flight: InFlight
    clock: Clock
    observer: Observer

    def check(self, terms: Terms) -> None:
        """Ask without charging anything; raises what `AdmissionLedger.check` does."""
        try:
            self.in_flight.check(self._claim(terms), self.clock.now())
        except RequestRejected as error:
            self.observer.refused(error)
            raise

    def admit(self, terms: Terms) -> Charge:
        """Charge what was asked, or refuse it; raises what `AdmissionLedger.check` does."""
        try:
            charge = self.in_flight.admit(self._claim(terms), self.clock.now())
        except RequestRejected as error:
            self.observer.refused(error)
            raise
        self.observer.admitted(terms.model, terms.num_images)
        return charge

    def retry_after_s(self) -> float:
        """Return when the present backlog should be gone."""
        return self.in_flight.retry_after_s(self.clock.now())

    def max_cohort(self, model: ModelKey) -> int:
        """Return how many images of a model may be in flight together."""
        border_bytes = self.models[model].border_bytes
        if not border_bytes:
            return self.limits.max_in_flight
        return min(self.limits.max_in_flight, self.limits.max_feature_bytes // border_bytes)

    def _claim(self, terms: Terms) -> Claim:
        model = self.models[terms.model]
        times = self.stage_costs.times(terms.model)
        due_s = 0.0 if terms.deadline_at is None else terms.deadline_at - self.clock.now()
        return claim_for(terms, model, times, margin_s=self.limits.margin_s(due_s))


class Reservation(AbstractContextManager["Reservation"]):
    """Room and time for cohorts that run one after another, held until it is left.

    Belongs to the event loop.

    Args:
        charge: What admission charged.
        in_flight: Where.
    """

    def __init__(self, charge: Charge, in_flight: InFlight) -> None:
        self.charge = charge
        self._in_flight = in_flight

    def release(self) -> None:
        """Give room and time back; a second time does nothing."""
        self._in_flight.release(self.charge)
        self._in_flight.tell_if_empty()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
