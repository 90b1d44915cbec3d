"""What must hold for every course of events: arrivals, deadlines, failures, callers that leave."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.backends.fake import FailAt
from service.engine.request import EngineLimits
from service.engine.slot import Ending
from service.errors import RequestRejected

if TYPE_CHECKING:
    from tests.engine.conftest import Asked, Simulation

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
    simulation: "Simulation", course: Sequence[dict[str, Any]]
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


def simulation_of(
    simulate: Callable[..., "Simulation"],
    course: Sequence[dict[str, Any]],
    *,
    failing: Collection[int] = (),
    **options: Any,
) -> "Simulation":
    scripts = {number: request["confidences"] for number, request in enumerate(course)}
    hooks = (FailAt(1, frozenset(failing)),) if failing else ()
    return simulate(confidences_by_image=scripts, hooks=hooks, **options)


@quick
@given(course=courses, failing=failing, can_join=st.booleans(), max_in_flight=st.integers(1, 12))
def test_everybody_admitted_is_settled_once_and_nothing_stays_in_flight(
    simulate, course, failing, can_join, max_in_flight
):
    limits = EngineLimits(max_in_flight=max_in_flight, deadline_margin_s=0.0)
    simulation = simulation_of(
        simulate, course, failing=failing, can_join=can_join, limits=limits, per_image_s=0.1
    )

    admitted = play(simulation, course)

    assert sum(len(asked.answers) for asked, _ in admitted) == (
        len(admitted) - simulation.observer.num_abandoned
    )
    assert all(len(asked.answers) <= 1 and asked.cohort.is_closed for asked, _ in admitted)
    assert simulation.in_flight.num_images == 0
    assert simulation.in_flight.feature_bytes == 0
    assert simulation.in_flight.owed_s == 0.0
    assert simulation.in_flight.retry_after_s(simulation.clock.now()) == 0.0
    assert not any(simulation.observer.depths.values())


@quick
@given(course=courses, failing=failing)
def test_no_answer_comes_after_its_deadline(simulate, course, failing):
    simulation = simulation_of(simulate, course, failing=failing, per_image_s=0.1)

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
    assert executed == sum(asked.cohort.slots[0].spent_macs for asked, _ in admitted)
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
                assert outcome.answer.record.exit_index >= asked.cohort.request.mandatory_exit


@quick
@given(arrivals=st.lists(st.tuples(quarters(0, 60), quarters(4, 60)), min_size=1, max_size=14))
def test_who_is_admitted_with_a_deadline_has_an_answer_by_then(simulate, arrivals):
    # A batch costs the sum of its images here, and quarters add up exactly: so do predictions.
    simulation = simulate(trunk_s=0.0, per_image_s=0.5)
    admitted = []

    def arrive(slack_s: float) -> None:
        try:
            admitted.append(simulation.ask(deadline_at=simulation.clock.now() + slack_s))
        except RequestRejected:
            return

    for arrives_at, slack_s in arrivals:
        simulation.clock.call_at(arrives_at, partial(arrive, slack_s))
    simulation.run()

    assert all(asked.outcome.answer is not None for asked in admitted)
