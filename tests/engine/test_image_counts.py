"""Images counted in and out: who was let in is answered, unanswered or abandoned, exactly once."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.policies.full_depth import start_full_depth
from service.backends.fake import numbered_images
from service.engine.admission import Charge
from service.engine.image import Ending
from service.engine.request import EngineLimits, ExitLimits, Terms
from service.engine.window_policy import WindowCohortPolicy
from service.errors import DeadlineInfeasible, RequestRejected

if TYPE_CHECKING:
    from benchmarks.simulation import Asked
    from tests.engine.conftest import EngineSimulation


def announce(simulation: "EngineSimulation", deadline_at: float) -> Charge:
    """Hold a place for an image whose pixels are still to come."""
    now = simulation.clock.now()
    terms = Terms(simulation.model.key, 1, deadline_at, deadline_at, arrived_at=now)
    return simulation.core.gate.reserve(terms, now)


def submit_announced(simulation: "EngineSimulation", charge: Charge, deadline_at: float) -> "Asked":
    limits = ExitLimits(deadline_at, None, None, 0, 3, False)
    return simulation.submit(
        simulation.model.key, numbered_images([0]), limits, due_at=deadline_at, charge=charge
    )


def ask_windowed(simulation: "EngineSimulation", numbers: Sequence[int], charge: Charge) -> "Asked":
    policy = WindowCohortPolicy(
        start_full_depth(simulation.model.costs, len(numbers), every_classifier=False),
        simulation.costs.times(simulation.model.key),
        deadline_at=None,
        margin_s=0.0,
    )
    return simulation.ask_window(numbers, policy, charge=charge)


def num_counted_out(simulation: "EngineSimulation") -> int:
    return len(simulation.observer.outcomes) + simulation.observer.num_abandoned


def test_image_refused_when_its_pixels_are_there_is_refused_and_nothing_else(simulate):
    simulation = simulate()
    charge = announce(simulation, deadline_at=10.0)

    def submit_too_late() -> None:
        with pytest.raises(DeadlineInfeasible):
            submit_announced(simulation, charge, deadline_at=10.0)
        simulation.core.ledger.release(charge)  # as whoever announced it does on his way out

    simulation.clock.call_at(9.5, submit_too_late)
    simulation.run()

    assert [type(error) for error in simulation.observer.refusals] == [DeadlineInfeasible]
    assert (simulation.observer.num_admitted, num_counted_out(simulation)) == (0, 0)
    assert simulation.core.ledger.num_charges == 0


def test_place_whose_pixels_never_come_lets_no_image_in(simulate):
    simulation = simulate()

    simulation.core.ledger.release(announce(simulation, deadline_at=10.0))

    assert (simulation.observer.num_admitted, num_counted_out(simulation)) == (0, 0)
    assert simulation.core.ledger.num_charges == 0


def test_image_announced_and_submitted_is_let_in_once(simulate):
    simulation = simulate()
    charge = announce(simulation, deadline_at=10.0)

    submit_announced(simulation, charge, deadline_at=10.0)
    num_admitted = simulation.observer.num_admitted
    simulation.run()
    simulation.core.ledger.release(charge)

    assert (num_admitted, len(simulation.observer.outcomes)) == (1, 1)
    assert simulation.observer.num_admitted == 1


def test_batch_left_between_two_windows_counts_those_that_began(simulate):
    simulation = simulate()
    now = simulation.clock.now()
    terms = simulation.terms(num_images=6, num_at_once=2)
    charge = simulation.core.gate.reserve(terms, now)

    ask_windowed(simulation, [0, 1], charge)
    simulation.run()
    left = ask_windowed(simulation, [2, 3], charge)
    simulation.end(left, Ending.LEFT)
    simulation.core.ledger.release(charge)
    simulation.run()

    assert simulation.observer.num_admitted == 4
    assert (len(simulation.observer.outcomes), simulation.observer.num_abandoned) == (2, 2)


quarters = st.integers(0, 80).map(lambda number: number / 4)
courses = st.fixed_dictionaries(
    {
        "arrives_at": quarters,
        "slack_s": quarters,
        "pixels_after_s": st.one_of(st.none(), quarters),  # None: they never come
        "leaves_after_s": st.one_of(st.just(200.0), quarters),
        "num_windows": st.integers(0, 3),  # 0: a single image
    }
)


class Caller:
    """One client of a course, who holds a place from his arrival until he goes."""

    def __init__(self, simulation: "EngineSimulation", course: dict[str, Any]) -> None:
        self._simulation = simulation
        self._deadline_at = course["arrives_at"] + course["slack_s"]
        self._pixels_after_s: float | None = course["pixels_after_s"]
        self._leaves_after_s: float = course["leaves_after_s"]
        self._is_batch = course["num_windows"] > 0
        self._num_windows_left: int = course["num_windows"]
        self._charge: Charge | None = None
        self._asked: Asked | None = None
        simulation.clock.call_at(course["arrives_at"], self._arrive)

    def _arrive(self) -> None:
        simulation, num_images = self._simulation, 2 * self._num_windows_left
        try:
            if self._is_batch:
                terms = simulation.terms(num_images=num_images, num_at_once=2)
                self._charge = simulation.core.gate.reserve(terms, simulation.clock.now())
            else:
                self._charge = announce(simulation, self._deadline_at)
        except RequestRejected:
            return
        if self._pixels_after_s is not None:
            self._call_after(self._pixels_after_s, self._send)
        self._call_after(self._leaves_after_s, self._leave)

    def _send(self) -> None:
        if self._charge is None:
            return
        if self._is_batch:
            self._send_windows(self._charge)
            return
        try:
            self._asked = submit_announced(self._simulation, self._charge, self._deadline_at)
        except RequestRejected:
            self._leave()

    def _send_windows(self, charge: Charge) -> None:
        """Send a window, and look now and then whether the next may follow."""
        if self._asked is None or self._asked.answers:
            if not self._num_windows_left:
                return
            self._num_windows_left -= 1
            self._asked = ask_windowed(self._simulation, [0, 1], charge)
        self._call_after(0.5, self._send)

    def _leave(self) -> None:
        charge, self._charge = self._charge, None
        if self._asked is not None:
            self._simulation.end(self._asked, Ending.LEFT)
        if charge is not None:
            self._simulation.core.ledger.release(charge)

    def _call_after(self, delay_s: float, callback: Callable[[], None]) -> None:
        clock = self._simulation.clock
        clock.call_at(clock.now() + delay_s, callback)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    callers=st.lists(courses, min_size=1, max_size=10),
    max_in_flight=st.integers(2, 12),
    num_lanes=st.integers(1, 2),
)
def test_every_image_let_in_is_counted_out_once_however_its_caller_fares(
    simulate, callers, max_in_flight, num_lanes
):
    limits = EngineLimits(max_in_flight=max_in_flight)
    simulation = simulate(limits=limits, per_image_s=0.25, trunk_s=0.25, num_lanes=num_lanes)
    for course in callers:
        Caller(simulation, course)

    simulation.run()

    assert simulation.observer.num_admitted == num_counted_out(simulation)
    assert simulation.core.is_empty
