"""What must hold for every course of events: arrivals, deadlines, failures, callers that leave."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.policies.geometric import start_geometric
from service.backends.fake import FailAt
from service.engine.image import Ending
from service.engine.member import Kind
from service.engine.request import EngineLimits
from service.engine.window_policy import WindowCohortPolicy
from service.errors import RequestRejected

if TYPE_CHECKING:
    from benchmarks.simulation import Asked
    from tests.engine.conftest import EngineSimulation

instants = st.floats(0.0, 30.0, allow_nan=False)
slacks = st.one_of(st.none(), st.floats(0.5, 20.0, allow_nan=False))
confidences = st.tuples(*[st.sampled_from([0.2, 0.6, 0.95, math.nan])] * 4)
requests = st.fixed_dictionaries(
    {
        "arrives_at": instants,
        "slack_s": slacks,
        "leaves_after_s": st.one_of(st.none(), st.floats(0.0, 10.0)),
        "confidences": confidences,
        "min_confidence": st.sampled_from([None, 0.5, 0.9]),
        "min_exit": st.sampled_from([0, 0, 0, 2]),
        "budget_macs": st.sampled_from([None, 700, 2000]),
        "every_classifier": st.booleans(),
    }
)
courses = st.lists(requests, min_size=1, max_size=12)
failing = st.sets(st.integers(0, 11), max_size=2)
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def quarters(least: int, most: int) -> st.SearchStrategy[float]:
    return st.integers(least, most).map(lambda number: number / 4)


def play(
    simulation: "EngineSimulation", course: Sequence[dict[str, Any]]
) -> list[tuple["Asked", float | None]]:
    """Let a course of events happen and return who was admitted, with his request."""
    admitted: list[tuple[Asked, float | None]] = []

    def arrive(number: int, request: dict[str, Any]) -> None:
        deadline_at = None
        if request["slack_s"] is not None:
            deadline_at = simulation.clock.now() + request["slack_s"]
        try:
            asked = simulation.ask(
                number,
                deadline_at=deadline_at,
                budget_macs=request["budget_macs"],
                min_confidence=request["min_confidence"],
                min_exit=request["min_exit"],
                every_classifier=request["every_classifier"],
            )
        except RequestRejected:
            return
        admitted.append((asked, deadline_at))
        if request["leaves_after_s"] is not None:
            leaves_at = simulation.clock.now() + request["leaves_after_s"]
            simulation.clock.call_at(leaves_at, lambda: simulation.end(asked, Ending.LEFT))

    for number, request in enumerate(course):
        simulation.clock.call_at(request["arrives_at"], partial(arrive, number, request))
    simulation.run()
    return admitted


def play_deadlines(
    simulation: "EngineSimulation", arrivals: Sequence[tuple[float, float]]
) -> list["Asked"]:
    """Let requests come, by when and with how much time, and return those that were admitted."""
    admitted: list[Asked] = []

    def arrive(slack_s: float) -> None:
        with contextlib.suppress(RequestRejected):
            admitted.append(simulation.ask(deadline_at=simulation.clock.now() + slack_s))

    for arrives_at, slack_s in arrivals:
        simulation.clock.call_at(arrives_at, partial(arrive, slack_s))
    simulation.run()
    return admitted


def simulation_of(
    simulate: Callable[..., "EngineSimulation"],
    course: Sequence[dict[str, Any]],
    *,
    failing: Collection[int] = (),
    **options: Any,
) -> "EngineSimulation":
    scripts = {number: request["confidences"] for number, request in enumerate(course)}
    hooks = (FailAt(1, frozenset(failing)),) if failing else ()
    return simulate(confidences_by_image=scripts, hooks=hooks, **options)


@quick
@given(
    course=courses,
    failing=failing,
    can_join=st.booleans(),
    max_in_flight=st.integers(1, 12),
    num_lanes=st.integers(1, 3),
)
def test_everybody_admitted_is_settled_once_and_nothing_stays_in_flight(
    simulate, course, failing, can_join, max_in_flight, num_lanes
):
    limits = EngineLimits(max_in_flight=max_in_flight)
    simulation = simulation_of(
        simulate,
        course,
        failing=failing,
        can_join=can_join,
        limits=limits,
        per_image_s=0.1,
        num_lanes=num_lanes,
    )

    admitted = play(simulation, course)

    assert sum(len(asked.answers) for asked, _ in admitted) == (
        len(admitted) - simulation.observer.num_abandoned
    )
    assert all(len(asked.answers) <= 1 and asked.cohort.is_closed for asked, _ in admitted)
    ledger = simulation.core.ledger
    assert simulation.core.is_empty
    assert (ledger.num_in_flight, ledger.num_background) == (0, 0)
    assert (ledger.feature_bytes, ledger.held_bytes) == (0, 0)
    assert (ledger.owed_s, ledger.full_depth_us) == (0.0, 0)
    assert not simulation.core.has_waiting


@quick
@given(course=courses, failing=failing, num_lanes=st.integers(1, 3))
def test_no_answer_comes_after_its_deadline(simulate, course, failing, num_lanes):
    simulation = simulation_of(
        simulate, course, failing=failing, per_image_s=0.1, num_lanes=num_lanes
    )

    admitted = play(simulation, course)

    for asked, deadline_at in admitted:
        assert deadline_at is None or not asked.answers or asked.settled_at <= deadline_at


@quick
@given(course=courses, failing=failing)
def test_what_is_reported_was_executed_and_every_stage_ran_once(simulate, course, failing):
    simulation = simulation_of(simulate, course, failing=failing, per_image_s=0.1)

    admitted = play(simulation, course)

    observer = simulation.observer
    executed = sum(macs for *_, macs in observer.finished)
    executed += sum(macs for _, _, macs, _ in observer.failed)
    assert executed == sum(asked.cohort.images[0].spent_macs for asked, _ in admitted)
    told = sum(asked.outcome.spent_macs for asked, _ in admitted if asked.answers)
    assert told <= executed
    runs = Counter(
        (image, call.stage.stage_index)
        for call in simulation.backend.calls
        for image in call.images
    )
    assert set(runs.values()) <= {1}
    assert all((image, stage - 1) in runs for image, stage in runs if stage)


@quick
@given(course=courses)
def test_every_outcome_is_either_an_answer_or_an_error(simulate, course):
    simulation = simulation_of(simulate, course)

    admitted = play(simulation, course)

    for asked, _ in admitted:
        if asked.answers:
            outcome = asked.outcome
            assert (outcome.answer is None) != (outcome.error is None)
            if outcome.answer is not None:
                assert outcome.answer.record is outcome.answer.passed[-1]
                assert outcome.answer.record.exit_index >= asked.cohort.images[0].mandatory_exit


@quick
@given(
    arrivals=st.lists(st.tuples(quarters(0, 60), quarters(4, 60)), min_size=1, max_size=14),
    num_lanes=st.integers(1, 2),
)
def test_who_is_admitted_with_a_deadline_has_an_answer_by_then(simulate, arrivals, num_lanes):
    # A batch costs the sum of its images here, and quarters add up exactly: so do predictions.
    simulation = simulate(trunk_s=0.0, per_image_s=0.5, num_lanes=num_lanes)

    admitted = play_deadlines(simulation, arrivals)

    assert all(asked.outcome.answer is not None for asked in admitted)


@quick
@given(course=courses, num_lanes=st.integers(1, 3))
def test_no_lane_idles_while_first_answers_wait(simulate, course, num_lanes):
    simulation = simulation_of(simulate, course, num_lanes=num_lanes, per_image_s=0.1)
    idle_while_waiting = []

    def look() -> None:
        core = simulation.core
        if core.lanes.num_idle and any(
            image.kind is not Kind.OPTIONAL and image.run is None and not image.is_gone
            for cohort in core.cohorts
            for image in cohort.images
        ):
            idle_while_waiting.append(simulation.clock.now())

    for tenth in range(1, 400):
        simulation.clock.call_at(tenth / 10 + 0.05, look)
    play(simulation, course)

    assert not idle_while_waiting


@quick
@given(arrivals=st.lists(st.tuples(quarters(0, 20), quarters(8, 60)), min_size=1, max_size=14))
def test_first_answers_are_worked_on_in_the_order_of_their_deadlines(simulate, arrivals):
    simulation = simulate(trunk_s=0.0, per_image_s=0.5, max_batch=1)

    admitted = play_deadlines(simulation, arrivals)

    for run in simulation.runs:
        if run.stage.stage_index == 0:
            (image,) = run.images
            waiting = [
                asked.cohort.images[0].answer_by
                for asked in admitted
                if asked.cohort.arrived_at < run.begun_at
                and began_at(simulation, asked) > run.begun_at
            ]
            assert all(image.answer_by <= answer_by for answer_by in waiting)


def began_at(simulation: "EngineSimulation", asked: "Asked") -> float:
    """When an admitted request's first stage began; infinity where it never did."""
    begun = [run.begun_at for run in simulation.runs if asked.cohort.images[0] in run.images]
    return min(begun, default=math.inf)


@quick
@given(seed=st.integers(0, 1000))
def test_overdue_work_without_a_deadline_is_not_starved(simulate, seed):
    simulation = simulate(trunk_s=0.0, per_image_s=0.5, limits=EngineLimits(background_share=0.1))
    background = simulation.ask(0, due_at=1.0)
    random = np.random.default_rng(seed)

    def arrive(number: int) -> None:
        with contextlib.suppress(RequestRejected):
            simulation.ask(number, deadline_at=simulation.clock.now() + 4.0)

    for number, arrives_at in enumerate(np.cumsum(random.exponential(0.25, 400)), start=1):
        simulation.clock.call_at(float(arrives_at), partial(arrive, number))
    simulation.run()

    # Four half seconds at a tenth of the time, from when it is overdue; and what is in the way.
    assert background.settled_at < 1.0 + 4 * 0.5 / 0.1 + 5.0


@quick
@given(
    seed=st.integers(0, 1000),
    budget_macs=st.integers(4 * 110, 4 * 1100),
    fails=st.booleans(),
    leaves_at=st.one_of(st.none(), st.floats(0.1, 8.0)),
)
def test_window_never_spends_more_than_its_budget(simulate, seed, budget_macs, fails, leaves_at):
    confidences = np.random.default_rng(seed).uniform(0.15, 0.95, (4, 4))
    scripts = {number: tuple(row) for number, row in enumerate(confidences.tolist())}
    hooks = (FailAt(2, frozenset({1})),) if fails else ()
    simulation = simulate(confidences_by_image=scripts, hooks=hooks, num_lanes=2, max_batch=2)
    policy = start_geometric(simulation.model.costs, 4, budget_macs, (0.9, 0.8, 0.7, 0.0))
    times = simulation.costs.times(simulation.model.key)

    asked = simulation.ask_window(
        range(4), WindowCohortPolicy(policy, times, deadline_at=None, margin_s=0.0)
    )
    if leaves_at is not None:
        simulation.clock.call_at(leaves_at, lambda: simulation.end(asked, Ending.LEFT))
    simulation.run()

    assert sum(image.spent_macs for image in asked.cohort.images) <= budget_macs
