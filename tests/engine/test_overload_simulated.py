"""More requests than a server can answer, and stages slower than it expects, on a virtual clock."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks.simulation import Asked, Setup, Simulation
from service.backends.base import StageKey
from service.backends.fake import FakeBackend, FakeModel, numbered_images
from service.engine.cushion import Cushion
from service.engine.request import EngineLimits, ExitLimits, ExitReason, ServedModel
from service.engine.stage_costs import StageCosts
from service.errors import Overloaded
from tests.engine.conftest import COSTS, KEY, BackendScript, RecordingObserver

MAX_BATCH = 8
FIXED_S, IMAGE_S = 0.001, 0.0005  # that a stage is expected to take, and does take 1.5 times
SLOWER = 1.5
CAPACITY_HZ = MAX_BATCH / (SLOWER * (FIXED_S + MAX_BATCH * IMAGE_S))  # of first answers
OVERLOAD = 1.5  # times that many requests come
DEADLINE_S = 0.1
MODEL = ServedModel(KEY, COSTS, (1.0,) * 4, border_bytes=8, input_shape=(3, 2, 2))


class UnteachableCosts(StageCosts):
    """Expects for ever what was profiled, as where every change is over before it is learnt."""

    def observe(
        self, stage: StageKey, batch_size: int, num_classified: int, elapsed_s: float
    ) -> None:
        """Learn nothing."""


def costs_of(make: type[StageCosts], *, factor: float) -> StageCosts:
    costs = make(max_batch=MAX_BATCH)
    for stage_index in range(COSTS.num_exits):
        for size in costs.buckets:
            costs.profile(
                StageKey(KEY, stage_index),
                size,
                trunk_s=factor * (FIXED_S + IMAGE_S * size),
                classifier_s=0.0,
            )
    return costs


@dataclass(frozen=True)
class Course:
    """How it went."""

    admitted: Sequence[Asked]
    num_refused: int

    @property
    def answered_share(self) -> float:
        """Of those admitted, but for the first fifth, from whom it learns."""
        later = self.admitted[len(self.admitted) // 5 :]
        return sum(one.outcome.answer is not None for one in later) / len(later)


@pytest.fixture
def overload():
    """Asks for one and a half times as many answers as there can be, for some seconds."""

    def run(*, has_cushion: bool = True, num_requests: int = 6000) -> Course:
        simulation = Simulation(
            Setup(
                {KEY: MODEL},
                costs_of(UnteachableCosts, factor=1.0),
                limits=EngineLimits(max_in_flight=1000),
            ),
            BackendScript(
                FakeBackend({KEY: FakeModel((0.3, 0.5, 0.7, 0.9))}),
                costs_of(StageCosts, factor=SLOWER),
            ),
            observer=RecordingObserver(),
        )
        if not has_cushion:
            simulation.core.ledger.cushion = Cushion()  # that nobody tells anything
        admitted, refused = [], []

        def ask() -> None:
            deadline_at = simulation.clock.now() + DEADLINE_S
            limits = ExitLimits(deadline_at, None, None, 0, 3, False)
            try:
                inputs = numbered_images([0])
                admitted.append(simulation.submit(KEY, inputs, limits, due_at=deadline_at))
            except Overloaded as error:
                refused.append(error)

        gaps_s = np.random.default_rng(1).exponential(1.0 / (OVERLOAD * CAPACITY_HZ), num_requests)
        for arrives_at in np.cumsum(gaps_s):
            simulation.clock.call_at(float(arrives_at), ask)
        simulation.run()
        return Course(admitted, len(refused))

    return run


def test_nearly_all_who_are_admitted_have_answers_though_stages_are_slower_than_expected(overload):
    course = overload()

    admitted_share = len(course.admitted) / (len(course.admitted) + course.num_refused)
    assert course.answered_share > 0.99
    assert admitted_share > 0.9 / OVERLOAD


def test_without_a_cushion_most_are_admitted_in_vain(overload):
    course = overload(has_cushion=False)

    assert course.answered_share < 0.5


def test_while_first_answers_come_late_others_stand_with_theirs_for_the_sake_of_them(overload):
    course = overload(num_requests=2000)

    reasons = {one.outcome.answer.reason for one in course.admitted if one.outcome.answer}
    assert ExitReason.LOAD in reasons
