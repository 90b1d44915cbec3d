"""The engine as the service sees it: admit, wait for outcomes, never beyond a deadline."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.backends.base import ModelKey
from service.engine.cohort import InFlightCohort, OnAnswer
from service.engine.door import WindowRun
from service.engine.exit_policy import CohortPolicy
from service.engine.image import Ending
from service.engine.life import EngineLife
from service.engine.request import ExitLimits, ImageOutcome, Terms
from service.engine.reservation import ChargedReservation, Reservation, charge_of
from service.engine.ticket import GroupTicket, Ticket, Waiter
from service.engine.window_policy import WindowCohortPolicy


class Engine(EngineLife):
    """Runs cohorts through the stages of served models, on lanes of its own; an `EngineDoor`.

    It is put together as `EngineLife` says.
    """

    def check(self, terms: Terms) -> None:
        """See `EngineDoor.check`."""
        with self._lock:
            self._lanes.refuse_if_closed()
            self._core.gate.check(terms, self._clock.now())

    def reserve(self, terms: Terms) -> ChargedReservation:
        """See `EngineDoor.reserve`."""
        with self._lock:
            self._lanes.refuse_if_closed()
            return ChargedReservation(
                self._core.gate.reserve(terms, self._clock.now()),
                self._lanes.release,
            )

    def submit(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        limits: ExitLimits,
        *,
        arrived_at: float,
        due_at: float,
        reservation: Reservation | None = None,
        heard: OnAnswer | None = None,
    ) -> Ticket:
        """See `EngineDoor.submit`; `heard` is told what classifiers say on the way."""
        lanes, core = self._lanes, self._core
        asked = core.models[model]
        plan = asked.plans.plan(limits)
        deadline_at, min_exit = limits.deadline_at, limits.min_exit
        terms = Terms(model, 1, due_at, deadline_at, min_exit, None, arrived_at)
        with self._lock:
            lanes.refuse_if_closed()
            now = self._clock.now()
            if reservation is None:
                charge = core.gate.reserve(terms, now)
            else:
                charge = charge_of(reservation)
                core.gate.correct(charge, terms, now)
            cohort = InFlightCohort(
                asked,
                inputs,
                plan,
                charge=charge,
                arrived_at=arrived_at,
                deadline_at=deadline_at,
                answer_by=charge.claim.answer_by,
            )
            cohort.heard = heard
            ticket = Ticket(self._outbox.loop().create_future(), cohort, self._end)
            lanes.hand_over(cohort, ticket, now)
        self._arm(ticket, cohort, now)
        return ticket

    async def run(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        policy: CohortPolicy,
        *,
        arrived_at: float,
        due_at: float,
        deadline_at: float | None,
        reservation: Reservation | None = None,
        heard: OnAnswer | None = None,
    ) -> tuple[ImageOutcome, ...]:
        """Run images that are decided together and return how each of them ended, in order.

        At the deadline, less the margin, the best exits so far are the answers. Cancelled, it runs
        no further stage.

        Args:
            model: Which.
            inputs: Normalised pixels, shape ``(M, 3, H, W)``, M at least 1; not written to later.
            policy: Decides who goes on; not begun, and not to be touched again before this returns.
            arrived_at: When the request came; its deadline runs from then.
            due_at: The deadline, or the soft one of images without.
            deadline_at: When the answers must be there.
            reservation: Under which they were admitted; it stays the caller's. None: admit now.
            heard: Told what classifiers say on the way.

        Raises:
            ServiceError: None of them ran; see `EngineDoor.check`. Where the engine stops later,
                each image's error says so.
            ValueError: More images than there may be at once; see `max_cohort`.
        """
        terms = Terms(model, len(inputs), due_at, deadline_at, arrived_at=arrived_at)
        with self._lock:
            self._lanes.refuse_if_closed()
            now = self._clock.now()
            owns_charge = reservation is None
            charge = (
                self._core.gate.reserve(terms, now)
                if reservation is None
                else charge_of(reservation)
            )
            cohort = InFlightCohort(
                self._core.models[model],
                inputs,
                policy,
                charge=charge,
                arrived_at=arrived_at,
                deadline_at=deadline_at,
                answer_by=self._answer_by(deadline_at, arrived_at),
                owns_charge=owns_charge,
            )
            cohort.heard = heard
            ticket = GroupTicket(self._outbox.loop().create_future(), cohort, self._end)
            self._lanes.hand_over(cohort, ticket, now)
        self._arm(ticket, cohort, now)
        try:
            return await ticket.outcome
        finally:
            ticket.abandon()

    async def run_window(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        run: WindowRun,
        reservation: Reservation,
    ) -> tuple[ImageOutcome, ...]:
        """See `EngineDoor.run_window`."""
        return await self.run(
            model,
            inputs,
            WindowCohortPolicy(
                run.window.policy,
                self.times(model),
                deadline_at=run.share_ends_at,
                margin_s=run.margin_s,
                num_lanes=self.num_lanes,
            ),
            arrived_at=run.arrived_at,
            due_at=run.due_at,
            deadline_at=run.deadline_at,
            reservation=reservation,
        )

    def _answer_by(self, deadline_at: float | None, arrived_at: float) -> float | None:
        if deadline_at is None:
            return None
        return deadline_at - self.margin.margin_s(deadline_at - arrived_at)

    def _arm(self, ticket: Waiter[Any], cohort: InFlightCohort, now: float) -> None:
        """Have the best answer so far told when its time is up."""
        if cohort.answer_by is not None:
            delay_s = max(0.0, cohort.answer_by - now)
            loop = self._outbox.loop()
            ticket.timer = loop.call_later(delay_s, self._end, cohort, Ending.DEADLINE)

    def _end(self, cohort: InFlightCohort, ending: Ending) -> None:
        """Settle a cohort from the event loop, unless it is settled already."""
        if not cohort.is_closed:
            self._lanes.settle(cohort, ending)
