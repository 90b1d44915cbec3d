"""Builders of engine tests: models, members, and a whole engine on a virtual clock."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest

from model_store.costs import ExitCosts
from service.backends.base import ModelKey, StageKey
from service.backends.fake import FakeBackend, FakeModel, StageCall, numbered_images
from service.engine.cohort import CohortRequest, InFlightCohort, Settlement
from service.engine.exit_policy import LoneRequestPolicy
from service.engine.gate import Gate
from service.engine.in_flight import InFlight
from service.engine.inbox import Inbox
from service.engine.lane import Lane, LaneParts
from service.engine.observer import WasteCause
from service.engine.request import EngineLimits, ExitLimits, ImageOutcome, ServedModel, Terms
from service.engine.scheduler import QueuedMember
from service.engine.slot import Ending
from service.engine.stage_costs import StageCosts
from service.errors import RequestRejected

KEY = ModelKey("fake", "1")
COSTS = ExitCosts(trunk_macs=(100, 200, 300, 400), classifier_macs=(10, 20, 30, 40))


class RecordingObserver:
    """Keeps what it hears, by kind."""

    def __init__(self) -> None:
        self.refusals: list[RequestRejected] = []
        self.num_admitted = 0
        self.depths: dict[StageKey, int] = {}
        self.finished: list[tuple[int, int, int, int]] = []
        self.failed: list[tuple[int, int, int, str]] = []
        self.outcomes: list[ImageOutcome] = []
        self.num_abandoned = 0
        self.wasted_macs: dict[WasteCause, int] = {}

    def warmed_up(self, model, macs):
        self.warm_up_macs = macs

    def admitted(self, model, num_images):
        self.num_admitted += num_images

    def refused(self, error):
        self.refusals.append(error)

    def queue_changed(self, stage, depth):
        self.depths[stage] = depth

    def stage_finished(self, stage, *, batch_size, num_classified, elapsed_s, macs):
        self.finished.append((stage.stage_index, batch_size, num_classified, macs))

    def stage_failed(self, stage, *, batch_size, macs, error):
        self.failed.append((stage.stage_index, batch_size, macs, str(error)))

    def settled(self, model, outcomes):
        self.outcomes.extend(outcomes)

    def abandoned(self, model, num_images):
        self.num_abandoned += num_images

    def wasted(self, macs, cause):
        self.wasted_macs[cause] = self.wasted_macs.get(cause, 0) + macs


class VirtualClock:
    """Stands still until it is advanced; on the way it calls back at the instants asked for."""

    def __init__(self) -> None:
        self._now = 0.0
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def now(self) -> float:
        return self._now

    def call_at(self, instant: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._alarms, (instant, next(self._order), callback))

    def advance_to(self, instant: float) -> None:
        """Go to an instant; what is set for that very instant happens afterwards."""
        while self._alarms and self._alarms[0][0] < instant:
            self.call_next()
        self._now = max(self._now, instant)

    def call_next(self) -> None:
        """Go to the next alarm and let it happen."""
        alarm_at, _, callback = heapq.heappop(self._alarms)
        self._now = max(self._now, alarm_at)
        callback()

    @property
    def next_alarm_at(self) -> float | None:
        return self._alarms[0][0] if self._alarms else None


@dataclass
class Asked:
    """One cohort of a simulation, and all that it was told."""

    cohort: InFlightCohort
    answers: list[tuple[float, tuple[ImageOutcome, ...]]] = field(default_factory=list)

    @property
    def outcome(self) -> ImageOutcome:
        """The only one."""
        ((_, outcomes),) = self.answers
        return outcomes[0]

    @property
    def outcomes(self) -> tuple[ImageOutcome, ...]:
        """Told once."""
        ((_, outcomes),) = self.answers
        return outcomes

    @property
    def settled_at(self) -> float:
        """When it was told."""
        ((settled_at, _),) = self.answers
        return settled_at


class Simulation:
    """Lane, ledger and timers on a virtual clock, in one thread; stages take what is profiled."""

    def __init__(
        self,
        *,
        confidences=(0.3, 0.5, 0.7, 0.9),
        confidences_by_image=None,
        trunk_s=1.0,
        classifier_s=0.0,
        per_image_s=0.0,
        max_batch=4,
        limits=None,
        hooks=(),
        can_join=True,
        image_shape=None,
    ) -> None:
        self.clock = VirtualClock()
        self.observer = RecordingObserver()
        self.costs = StageCosts(max_batch=max_batch)
        self.costs_of_truth = StageCosts(max_batch=max_batch)
        for stage_index in range(COSTS.num_exits):
            for size in self.costs.buckets:
                for costs in (self.costs, self.costs_of_truth):
                    costs.profile(
                        StageKey(KEY, stage_index),
                        size,
                        trunk_s=trunk_s + per_image_s * size,
                        classifier_s=classifier_s,
                    )
        self.model = ServedModel(KEY, COSTS, (1.0,) * 4, border_bytes=8, input_shape=(3, 2, 2))
        self.limits = limits or EngineLimits(deadline_margin_s=0.0)
        self.backend = FakeBackend(
            {
                KEY: FakeModel(
                    confidences,
                    confidences_by_image=confidences_by_image or {},
                    image_shape=image_shape,
                )
            },
            hooks=(self._take_time, *hooks),
            can_join=can_join,
        )
        self.in_flight = InFlight(self.limits)
        self.inbox = Inbox()
        self.gate = Gate(
            models={KEY: self.model},
            limits=self.limits,
            stage_costs=self.costs,
            in_flight=self.in_flight,
            clock=self.clock,
            observer=self.observer,
        )
        self.lane = Lane(
            LaneParts(
                backend=self.backend,
                inbox=self.inbox,
                in_flight=self.in_flight,
                stage_costs=self.costs,
                clock=self.clock,
                observer=self.observer,
                post=self._deliver,
            )
        )
        self._asked: dict[int, Asked] = {}
        self._ids = count()

    def _take_time(self, call: StageCall) -> None:
        elapsed_s = self.costs_of_truth.expected_s(call.stage, len(call.images), len(call.classify))
        self.clock.advance_to(self.clock.now() + elapsed_s)

    def _deliver(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            asked = self._asked[settlement.cohort.cohort_id]
            asked.answers.append((self.clock.now(), settlement.outcomes))

    def ask(
        self,
        number=0,
        *,
        deadline_at=None,
        due_at=None,
        budget_macs=None,
        min_confidence=None,
        min_exit=0,
        max_exit=3,
        every_classifier=False,
    ) -> Asked:
        """Admit a single request, as the event loop would."""
        limits = ExitLimits(
            deadline_at, budget_macs, min_confidence, min_exit, max_exit, every_classifier
        )
        policy = LoneRequestPolicy(
            limits, COSTS, self.costs.times(KEY), margin_s=self.limits.deadline_margin_s
        )
        return self.ask_cohort(
            [number],
            policy,
            deadline_at=deadline_at,
            due_at=due_at,
            mandatory_exit=min_exit,
        )

    def terms(self, *, num_images, num_at_once) -> Terms:
        """What a batch in windows asks of admission."""
        return Terms(KEY, num_images, due_at=100.0, deadline_at=None, num_at_once=num_at_once)

    def ask_cohort(
        self, numbers, policy, *, deadline_at=None, due_at=None, mandatory_exit=0, charge=None
    ) -> Asked:
        """Admit a cohort, as the event loop would."""
        now = self.clock.now()
        if due_at is None:
            due_at = now + 100.0 if deadline_at is None else deadline_at
        answer_by = None if deadline_at is None else deadline_at - self.limits.deadline_margin_s
        terms = Terms(KEY, len(numbers), due_at, deadline_at, mandatory_exit)
        self.last_charge = charge or self.gate.admit(terms)
        cohort = InFlightCohort(
            next(self._ids),
            CohortRequest(self.model, policy, now, due_at, answer_by, mandatory_exit),
            numbered_images(numbers),
            charge=self.last_charge,
            owns_charge=charge is None,
        )
        asked = self._asked[cohort.cohort_id] = Asked(cohort)
        self.inbox.put(cohort)
        if answer_by is not None:
            self.clock.call_at(answer_by, lambda: self.end(asked, Ending.DEADLINE))
        return asked

    def end(self, asked: Asked, ending: Ending) -> None:
        """Settle a cohort from the event loop's side."""
        settlement = self.in_flight.close(asked.cohort, ending, self.clock.now())
        if settlement is not None:
            if ending is not Ending.LEFT:
                self._deliver([settlement])
            self.inbox.drop(asked.cohort)
            settlement.report_to(self.observer)

    def run(self) -> None:
        """Run until nothing is left to do and no alarm is set."""
        while True:
            num_calls = len(self.backend.calls)
            self.lane.turn(may_wait=False)
            if len(self.backend.calls) > num_calls or self.in_flight_moves():
                continue
            if self.clock.next_alarm_at is None:
                return
            self.clock.call_next()

    def in_flight_moves(self) -> bool:
        """Whether the lane still has something it could run; expired images settle without it."""
        return any(self.observer.depths.values())


@pytest.fixture
def model_key():
    return KEY


@pytest.fixture
def exit_costs():
    return COSTS


@pytest.fixture
def simulate():
    return Simulation


@pytest.fixture
def recording_observer():
    return RecordingObserver()


@pytest.fixture
def make_member():
    def make(
        cohort_id=0,
        *,
        stage_index=0,
        classify=False,
        due_at=10.0,
        finish_by=None,
        has_answer=False,
        source=0,
        position=0,
    ):
        return QueuedMember(
            cohort_id=cohort_id,
            position=position,
            stage=StageKey(KEY, stage_index),
            classify=classify,
            due_at=due_at,
            finish_by=finish_by,
            has_answer=has_answer,
            source=source,
        )

    return make


@pytest.fixture
def make_costs():
    def make(*, max_batch=4, trunk_s=1.0, classifier_s=0.0, per_image_s=0.0):
        costs = StageCosts(max_batch=max_batch)
        for stage_index in range(COSTS.num_exits):
            for size in costs.buckets:
                costs.profile(
                    StageKey(KEY, stage_index),
                    size,
                    trunk_s=trunk_s + per_image_s * size,
                    classifier_s=classifier_s,
                )
        return costs

    return make
