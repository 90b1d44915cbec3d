"""The engine on a virtual clock: the server's own admission, scheduler and policies, any latencies.

A discrete-event simulation. Arrivals, ends of batches and answer timers are events; between them
`EngineCore` decides exactly as it does in the server, where threads and a lock drive it. What a
batch takes and what classifiers say comes from a `Script`: measured latencies and the confidences
of recorded logits, or whatever a test makes up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.virtual_clock import Order, VirtualClock
from service.backends.base import ModelKey
from service.engine.admission import Charge
from service.engine.cohort import InFlightCohort
from service.engine.core import EngineCore
from service.engine.exit_policy import CohortPolicy, plan_lone
from service.engine.image import Ending
from service.engine.margin import AnswerMargin
from service.engine.observer import Observer, SilentObserver
from service.engine.request import (
    EngineLimits,
    ExitLimits,
    ImageOutcome,
    ServedModel,
    Terms,
)
from service.engine.stage_costs import StageCosts
from service.engine.stage_run import StageResult, StageRun


class Script(Protocol):
    """What a machine and a network would do."""

    def run(self, batch: StageRun) -> tuple[StageResult, float]:
        """Return what a batch leaves, and how many seconds it takes."""
        ...


@dataclass
class Asked:
    """One cohort of a simulation, and all that it was told."""

    cohort: InFlightCohort
    clock: VirtualClock
    answers: list[tuple[float, tuple[ImageOutcome, ...]]] = field(default_factory=list)

    def tell(self, outcomes: tuple[ImageOutcome, ...]) -> None:
        """Note what it is told, and when."""
        self.answers.append((self.clock.now(), outcomes))

    @property
    def outcomes(self) -> tuple[ImageOutcome, ...]:
        """What it was told; once."""
        ((_, outcomes),) = self.answers
        return outcomes

    @property
    def outcome(self) -> ImageOutcome:
        """The only one."""
        (outcome,) = self.outcomes
        return outcome

    @property
    def settled_at(self) -> float:
        """When it was told."""
        ((settled_at, _),) = self.answers
        return settled_at


@dataclass(frozen=True, slots=True)
class Setup:
    """What a simulated server consists of."""

    models: Mapping[ModelKey, ServedModel]
    stage_costs: StageCosts  # what it expects; it learns, so none is used twice
    limits: EngineLimits = field(default_factory=EngineLimits)
    margin: AnswerMargin = field(default_factory=lambda: AnswerMargin(initial_s=0.0))
    num_lanes: int = 1
    can_join: bool = True


class Simulation:
    """Core, lanes and timers on a virtual clock, in one thread.

    Args:
        setup: What the server consists of.
        script: What batches leave and take.
        observer: Hears of everything countable.
        clock: Where events are set; None: a new one.
    """

    def __init__(
        self,
        setup: Setup,
        script: Script,
        *,
        observer: Observer | None = None,
        clock: VirtualClock | None = None,
    ) -> None:
        self.clock = VirtualClock() if clock is None else clock
        self.setup = setup
        self.core = EngineCore(
            models=setup.models,
            stage_costs=setup.stage_costs,
            limits=setup.limits,
            margin=setup.margin,
            num_lanes=setup.num_lanes,
            can_join=setup.can_join,
            observer=SilentObserver() if observer is None else observer,
        )
        self.runs: list[StageRun] = []
        self._script = script
        self._idle = list(reversed(range(setup.num_lanes)))
        self._is_looking = False

    def submit(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        limits: ExitLimits,
        *,
        due_at: float,
        charge: Charge | None = None,
    ) -> Asked:
        """Admit one image now, as `Engine.submit` does; raises what that raises."""
        now, core = self.clock.now(), self.core
        terms = Terms(model, 1, due_at, limits.deadline_at, limits.min_exit)
        if charge is None:
            charge = core.gate.reserve(terms, now)
        else:
            core.gate.correct(charge, terms, now)
        cohort = InFlightCohort(
            core.models[model],
            inputs,
            plan_lone(limits, self.setup.models[model].costs),
            charge=charge,
            arrived_at=now,
            deadline_at=limits.deadline_at,
            answer_by=charge.claim.answer_by,
        )
        return self._begin(cohort)

    def submit_window(
        self,
        model: ModelKey,
        inputs: NDArray[np.float32],
        policy: CohortPolicy,
        *,
        due_at: float,
        deadline_at: float | None = None,
        charge: Charge | None = None,
    ) -> Asked:
        """Admit images that are decided together now, as `Engine.run` does."""
        now = self.clock.now()
        owns_charge = charge is None
        if charge is None:
            charge = self.core.gate.reserve(Terms(model, len(inputs), due_at, deadline_at), now)
        cohort = InFlightCohort(
            self.core.models[model],
            inputs,
            policy,
            charge=charge,
            arrived_at=now,
            deadline_at=deadline_at,
            answer_by=charge.claim.answer_by,
            owns_charge=owns_charge,
        )
        return self._begin(cohort)

    def end(self, asked: Asked, ending: Ending) -> None:
        """Settle a cohort from the event loop's side."""
        settlement = self.core.settle(asked.cohort, ending, self.clock.now())
        if settlement is not None and ending is not Ending.LEFT:
            asked.tell(settlement.outcomes)

    def run(self) -> None:
        """Run until nothing is left to happen."""
        while self.clock.call_next():
            pass

    def look(self) -> None:
        """Let idle lanes take what there is, as those woken in the server do; soon."""
        if not self._is_looking:
            self._is_looking = True
            self.clock.call_at(self.clock.now(), self._look, Order.LOOK)

    def _begin(self, cohort: InFlightCohort) -> Asked:
        asked = Asked(cohort, self.clock)
        cohort.waiter = asked
        self.core.begin(cohort, self.clock.now())
        if cohort.answer_by is not None:
            self.clock.call_at(
                cohort.answer_by, lambda: self.end(asked, Ending.DEADLINE), Order.TIMER
            )
        self.look()
        return asked

    def _look(self) -> None:
        self._is_looking = False
        for lane in reversed(self._idle.copy()):
            self._take(lane)
        self._deliver()

    def _take(self, lane: int) -> None:
        now = self.clock.now()
        run = self.core.take(lane, now)
        if run is not None:
            self._idle.remove(lane)
            self._run(lane, run)
            return
        event_at = self.core.next_event_at()
        if event_at is not None:
            self.clock.call_at(max(event_at, now), self.look, Order.TIMER)

    def _run(self, lane: int, run: StageRun) -> None:
        self.runs.append(run)
        result, elapsed_s = self._script.run(run)

        def ended() -> None:
            # At once, as lanes of the server do under one lock.
            self.core.finish(lane, result, self.clock.now())
            self._idle.append(lane)
            self._take(lane)
            self._deliver()
            if self.core.has_waiting:
                self.look()

        self.clock.call_at(self.clock.now() + elapsed_s, ended, Order.END)

    def _deliver(self) -> None:
        for settlement in self.core.take_settlements():
            waiter = settlement.cohort.waiter
            if waiter is not None:
                waiter.tell(settlement.outcomes)
