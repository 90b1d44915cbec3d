"""The engine as the service sees it: admit a cohort, wait for its outcomes, never for longer."""

import asyncio
import threading
from collections.abc import Mapping
from itertools import count

import numpy as np
from numpy.typing import NDArray

from service.backends.base import ModelKey, StageBackend
from service.engine.clock import Clock
from service.engine.cohort import CohortRequest, InFlightCohort
from service.engine.exit_policy import CohortPolicy
from service.engine.gate import Gate, Reservation
from service.engine.in_flight import InFlight
from service.engine.inbox import Inbox, Outbox, call_on
from service.engine.lane import Lane, LaneParts
from service.engine.observer import Observer
from service.engine.request import EngineLimits, ImageOutcome, ServedModel, Terms
from service.engine.slot import Ending
from service.engine.stage_costs import ModelTimes, StageCosts
from service.engine.warm_up import WarmUp
from service.errors import EngineStopped


class Engine:
    """Runs cohorts through the stages of served models, on a thread of its own.

    Owned by the event loop, which calls everything but what says otherwise; the lane's thread is
    reached through the inbox alone.

    Args:
        backend: Runs the stages; nobody else uses it while the engine runs.
        models: Everything that may be asked for.
        costs: Expected times, empty until `warm_up`; knows the largest batch.
        limits: How much may be in flight.
        clock: Deadlines are instants of it.
        observer: Hears of everything countable.
    """

    def __init__(
        self,
        *,
        backend: StageBackend,
        models: Mapping[ModelKey, ServedModel],
        costs: StageCosts,
        limits: EngineLimits,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.limits = limits
        self.stage_costs = costs
        self._models = dict(models)
        self._clock = clock
        self._observer = observer
        self._in_flight = InFlight(limits)
        self._inbox = Inbox()
        self._outbox = Outbox()
        self._gate = Gate(
            models=self._models,
            limits=limits,
            stage_costs=costs,
            in_flight=self._in_flight,
            clock=clock,
            observer=observer,
        )
        self._cohort_ids = count()
        self._warm_up = WarmUp(backend, costs, clock)
        self._lane = Lane(
            LaneParts(
                backend=backend,
                inbox=self._inbox,
                in_flight=self._in_flight,
                stage_costs=costs,
                clock=clock,
                observer=observer,
                post=self._outbox.post,
            )
        )
        self._thread = threading.Thread(target=self._lane.run, name="engine-lane", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether cohorts are run."""
        return self._thread.is_alive() and not self._inbox.is_closed

    @property
    def num_in_flight(self) -> int:
        """Images admitted and not yet let go of."""
        return self._in_flight.num_images

    @property
    def feature_bytes(self) -> int:
        """Bytes of features charged for what is in flight."""
        return self._in_flight.feature_bytes

    def warm_up(self) -> None:
        """Run and profile every stage at every batch size; before `start`, in any thread.

        Raises:
            BackendFailed: A stage does not run.
        """
        for model in self._models.values():
            self._observer.warmed_up(model.key, self._warm_up.profile(model))

    def start(self) -> None:
        """Start the lane's thread, once."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the stage that runs, and settle everybody with `EngineStopped`.

        Returns when that is done, except in the lane's own thread, where it cannot wait for itself.
        """
        self._inbox.close()
        if self._thread.ident is None:
            self._lane.stop()
        elif threading.current_thread() is not self._thread:
            self._thread.join()

    async def drained(self) -> None:
        """Return when nothing is in flight and everybody settled has been told."""
        loop = asyncio.get_running_loop()
        is_empty = asyncio.Event()
        self._in_flight.call_when_empty(lambda: call_on(loop, is_empty.set))
        self._in_flight.tell_if_empty()
        await is_empty.wait()

    def times(self, model: ModelKey) -> ModelTimes:
        """Return what the stages of a model are expected to take, as exit policies ask."""
        return self.stage_costs.times(model)

    def expected_exit_s(self, model: ModelKey, exit_index: int, batch_size: int) -> float:
        """Return the seconds straight to an exit, no earlier classifier on the way."""
        return self.times(model).straight_s(0, exit_index, batch_size)

    def retry_after_s(self) -> float:
        """Return when the present backlog should be gone."""
        return self._gate.retry_after_s()

    def backlog_s(self) -> float:
        """Return the seconds until everybody in flight has a first answer."""
        return self._in_flight.owed_s

    def max_cohort(self, model: ModelKey) -> int:
        """Return how many images of a model may be in flight together."""
        return self._gate.max_cohort(model)

    def check(self, terms: Terms) -> None:
        """Ask admission without charging anything, as before a body is read.

        Raises:
            DeadlineInfeasible: Not even an idle server could.
            Overloaded: The present backlog forbids it.
            EngineStopped: Nobody would run it.
            ValueError: More at once than there may be; see `max_cohort`.
        """
        self._refuse_if_stopped()
        self._gate.check(terms)

    def reserve(self, terms: Terms) -> Reservation:
        """Admit cohorts that will run one after another; raises what `check` does."""
        self._refuse_if_stopped()
        return Reservation(self._gate.admit(terms), self._in_flight)

    async def run(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        policy: CohortPolicy,
        *,
        due_at: float,
        deadline_at: float | None,
        mandatory_exit: int = 0,
        arrived_at: float | None = None,
        reservation: Reservation | None = None,
    ) -> tuple[ImageOutcome, ...]:
        """Run a cohort and return how each of its images ended, in order.

        At the deadline, less the margin, the best exits so far are the answers. Cancelled, it runs
        no further stage.

        Args:
            model: Which.
            inputs: Normalised pixels, shape ``(M, 3, H, W)``, M at least 1; not written to later.
            policy: Decides who goes on; not begun, and not to be touched again before this returns.
            due_at: For ordering alone: who is due earlier runs first.
            deadline_at: When the answer must be there.
            mandatory_exit: The first that may answer.
            arrived_at: When the request came, for what an error says; None: now.
            reservation: Under which this was admitted already.

        Raises:
            DeadlineInfeasible: Not even an idle server could.
            Overloaded: The present backlog forbids it.
            EngineStopped: Nobody would run it. Stopped later, each image's error says so.
            ValueError: More images than there may be at once; see `max_cohort`.
        """
        self._refuse_if_stopped()
        now = self._clock.now()
        if reservation is None:
            terms = Terms(model, len(inputs), due_at, deadline_at, mandatory_exit)
            charge = self._gate.admit(terms)
        else:
            charge = reservation.charge
        request = CohortRequest(
            model=self._models[model],
            policy=policy,
            arrived_at=now if arrived_at is None else arrived_at,
            due_at=due_at,
            answer_by=self.limits.answer_by(deadline_at, now),
            mandatory_exit=mandatory_exit,
        )
        cohort = InFlightCohort(
            next(self._cohort_ids), request, inputs, charge=charge, owns_charge=reservation is None
        )
        return await self._outcomes(cohort, now)

    async def _outcomes(self, cohort: InFlightCohort, now: float) -> tuple[ImageOutcome, ...]:
        waiter = self._outbox.expect(cohort.cohort_id)
        timer: asyncio.TimerHandle | None = None
        if cohort.request.answer_by is not None:
            delay_s = max(0.0, cohort.request.answer_by - now)
            loop = asyncio.get_running_loop()
            timer = loop.call_later(delay_s, self._end, cohort, Ending.DEADLINE)
        try:
            self._inbox.put(cohort)
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._end(cohort, Ending.LEFT)
            self._outbox.forget(cohort.cohort_id)

    def _end(self, cohort: InFlightCohort, ending: Ending) -> None:
        """Settle a cohort from the event loop, unless it is settled already."""
        settlement = self._in_flight.close(cohort, ending, self._clock.now())
        if settlement is None:
            return
        self._outbox.deliver([settlement])
        if not self._inbox.drop(cohort):
            self._in_flight.retire(cohort)
            self._in_flight.tell_if_empty()
        settlement.report_to(self._observer)

    def _refuse_if_stopped(self) -> None:
        if self._inbox.is_closed:
            raise EngineStopped
