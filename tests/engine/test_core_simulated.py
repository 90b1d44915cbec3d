"""The core with everything behind it, on a virtual clock: stages take exactly what is expected."""

import gc
import math
import weakref
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from model_store.policies.base import WindowPolicy
from model_store.policies.full_depth import start_full_depth
from model_store.policies.geometric import start_geometric
from service.backends.base import StageKey
from service.backends.fake import FailAt
from service.engine.image import Ending
from service.engine.observer import WasteCause
from service.engine.request import EngineLimits, ExitReason, Terms
from service.engine.window_policy import WindowCohortPolicy
from service.errors import (
    BackendFailed,
    DeadlineInfeasible,
    DeadlineMissed,
    EngineStopped,
    Overloaded,
    ReplicaLost,
)

if TYPE_CHECKING:
    from tests.engine.conftest import EngineSimulation


def window(
    simulation: "EngineSimulation", policy: WindowPolicy, *, deadline_at: float | None = None
) -> WindowCohortPolicy:
    times = simulation.costs.times(simulation.model.key)
    return WindowCohortPolicy(policy, times, deadline_at=deadline_at, margin_s=0.0)


def stage_takes(
    simulation: "EngineSimulation", stage_index: int, trunk_s: float, *, batch_size: int = 1
) -> None:
    """Have batches of a size take so long, which nobody expects."""
    stage = StageKey(simulation.model.key, stage_index)
    simulation.costs_of_truth.profile(stage, batch_size, trunk_s=trunk_s, classifier_s=0.0)


def assert_nothing_in_flight(simulation: "EngineSimulation") -> None:
    ledger = simulation.core.ledger
    assert simulation.core.is_empty
    assert (ledger.num_in_flight, ledger.num_background) == (0, 0)
    assert (ledger.feature_bytes, ledger.held_bytes) == (0, 0)
    assert (ledger.owed_s, ledger.full_depth_us) == (0.0, 0)


def test_unlimited_request_runs_straight_to_the_last_exit_with_its_classifier_alone(simulate):
    simulation = simulate()

    asked = simulation.ask()
    simulation.run()

    assert [(c.stage.stage_index, c.classify) for c in simulation.backend.calls] == [
        (0, ()),
        (1, ()),
        (2, ()),
        (3, (0,)),
    ]
    assert asked.outcome.answer.reason is ExitReason.LAST_EXIT
    assert asked.outcome.spent_macs == 1040
    assert asked.outcome.compute_s == pytest.approx(4.0)
    assert_nothing_in_flight(simulation)


def test_survivors_of_different_requests_run_the_next_stage_together(simulate):
    simulation = simulate(confidences_by_image={2: (0.9, 0.9, 0.9, 0.9)})

    asked = [simulation.ask(number, min_confidence=0.7) for number in (1, 2, 3)]
    simulation.run()

    assert simulation.stages_run == [(0, (1, 2, 3)), (1, (1, 3)), (2, (1, 3))]
    assert [call.num_parts for call in simulation.backend.calls] == [1, 1, 1]
    assert [one.outcome.answer.record.exit_index for one in asked] == [2, 0, 2]
    assert {one.outcome.answer.reason for one in asked} == {ExitReason.CONFIDENT}


def test_backend_that_cannot_join_never_gets_two_parts(simulate):
    simulation = simulate(can_join=False)

    asked = [simulation.ask(number) for number in (1, 2)]
    simulation.run()

    assert {call.num_parts for call in simulation.backend.calls} == {1}
    assert all(one.outcome.answer is not None for one in asked)


def test_rows_that_need_no_classifier_are_not_classified(simulate):
    simulation = simulate()

    plain = simulation.ask(1)
    detailed = simulation.ask(2, every_classifier=True)
    simulation.run()

    assert [call.classify for call in simulation.backend.calls] == [(1,), (1,), (1,), (0, 1)]
    assert [record.exit_index for record in detailed.outcome.answer.passed] == [0, 1, 2, 3]
    assert plain.outcome.spent_macs == 1040
    assert detailed.outcome.spent_macs == 1100


def test_best_exit_so_far_is_the_answer_at_the_deadline_though_a_stage_still_runs(simulate):
    simulation = simulate()
    stage_takes(simulation, 1, 50.0)

    asked = simulation.ask(deadline_at=5.0)
    simulation.run()

    assert asked.settled_at == 5.0
    assert asked.outcome.answer.record.exit_index == 0
    assert asked.outcome.answer.reason is ExitReason.DEADLINE
    assert asked.outcome.spent_macs == 110 + 220
    assert asked.outcome.compute_s == pytest.approx(5.0)
    assert simulation.observer.wasted_macs == {WasteCause.LATE: 220}
    assert simulation.stages_run == [(0, (0,)), (1, (0,))]
    assert_nothing_in_flight(simulation)


def test_margin_is_kept_for_writing_the_answer(simulate):
    simulation = simulate(margin_s=0.5)
    stage_takes(simulation, 1, 50.0)

    asked = simulation.ask(deadline_at=5.0)
    simulation.run()

    assert asked.settled_at == 4.5


def test_request_without_an_exit_at_its_deadline_is_told_so_then(simulate):
    simulation = simulate()
    stage_takes(simulation, 0, 50.0)

    asked = simulation.ask(deadline_at=3.0)
    simulation.run()

    assert asked.settled_at == 3.0
    assert isinstance(asked.outcome.error, DeadlineMissed)
    assert asked.outcome.error.elapsed_s == pytest.approx(3.0)
    assert asked.outcome.spent_macs == 110
    assert simulation.observer.wasted_macs == {WasteCause.LATE: 110}
    assert_nothing_in_flight(simulation)


def test_exit_before_min_exit_is_no_answer_at_the_deadline(simulate):
    simulation = simulate()
    stage_takes(simulation, 1, 50.0)

    asked = simulation.ask(deadline_at=3.0, min_exit=1, every_classifier=True)
    simulation.run()

    assert isinstance(asked.outcome.error, DeadlineMissed)


def test_load_and_deadline_are_told_apart_by_what_would_have_fitted_alone(simulate):
    simulation = simulate(max_batch=1)
    first = simulation.ask(1, deadline_at=3.5)
    second = simulation.ask(2, deadline_at=3.6)

    simulation.run()

    # Both have an answer at 2.0 and time for one more stage; one of them gets it.
    assert simulation.stages_run == [(0, (1,)), (0, (2,)), (1, (1,))]
    assert first.outcome.answer.record.exit_index == 1
    assert first.outcome.answer.reason is ExitReason.DEADLINE
    assert first.settled_at == 3.0
    assert second.outcome.answer.record.exit_index == 0
    assert second.outcome.answer.reason is ExitReason.LOAD


def test_image_with_an_answer_stands_back_for_one_without(simulate):
    simulation = simulate(max_batch=1)

    deep = simulation.ask(1, deadline_at=4.5)
    late = simulation.ask(2, deadline_at=4.6)
    later = simulation.ask(3, deadline_at=4.7)
    latest = simulation.ask(4, deadline_at=4.8)
    simulation.run()

    assert simulation.stages_run == [(0, (1,)), (0, (2,)), (0, (3,)), (0, (4,))]
    assert all(one.outcome.answer is not None for one in (deep, late, later, latest))


def test_failed_stage_leaves_the_answer_an_image_had_and_harms_no_other_batch(simulate):
    simulation = simulate(hooks=(FailAt(1, frozenset({1})),), max_batch=1)

    answered = simulation.ask(1, every_classifier=True)
    unaffected = simulation.ask(2, every_classifier=True)
    simulation.run()

    assert answered.outcome.answer.reason is ExitReason.FAILED
    assert answered.outcome.answer.record.exit_index == 0
    assert answered.outcome.spent_macs == 110 + 220
    assert unaffected.outcome.answer.reason is ExitReason.LAST_EXIT
    assert simulation.observer.failed == [(1, 1, 220, "stage 1 fails, as scripted")]
    assert simulation.observer.wasted_macs == {WasteCause.FAILED: 220}
    assert_nothing_in_flight(simulation)


def test_failed_stage_is_an_error_of_its_own_for_each_image_without_an_answer(simulate):
    simulation = simulate(hooks=(FailAt(1),))

    first, second = simulation.ask(1), simulation.ask(2)
    simulation.run()

    assert isinstance(first.outcome.error, BackendFailed)
    assert isinstance(second.outcome.error, BackendFailed)
    assert first.outcome.error is not second.outcome.error
    assert_nothing_in_flight(simulation)


def test_logits_that_are_not_finite_fail_their_image_alone(simulate):
    nan = math.nan
    simulation = simulate(confidences_by_image={1: (0.3, nan, 0.7, 0.9)})

    broken = simulation.ask(1, every_classifier=True)
    whole = simulation.ask(2, every_classifier=True)
    simulation.run()

    assert broken.outcome.answer.reason is ExitReason.FAILED
    assert broken.outcome.answer.record.exit_index == 0
    assert whole.outcome.answer.reason is ExitReason.LAST_EXIT


def test_all_images_of_a_batch_may_have_logits_that_are_not_finite(simulate):
    simulation = simulate(confidences=(math.nan,) * 4)

    asked = simulation.ask()
    simulation.run()

    assert isinstance(asked.outcome.error, BackendFailed)


def test_inputs_that_the_backend_refuses_fail_their_cohort(simulate):
    simulation = simulate(image_shape=(3, 5, 5))

    asked = simulation.ask()
    simulation.run()

    assert isinstance(asked.outcome.error, BackendFailed)
    assert asked.outcome.spent_macs == 0
    assert_nothing_in_flight(simulation)


def test_request_that_is_left_before_its_first_stage_runs_none(simulate):
    simulation = simulate()

    asked = simulation.ask()
    simulation.end(asked, Ending.LEFT)
    simulation.run()

    assert not simulation.backend.calls
    assert not asked.answers
    assert simulation.observer.num_abandoned == 1
    assert_nothing_in_flight(simulation)


def test_request_that_is_left_while_a_stage_runs_runs_no_other(simulate):
    simulation = simulate()

    asked = simulation.ask()
    simulation.clock.call_at(1.5, lambda: simulation.end(asked, Ending.LEFT))
    simulation.run()

    assert simulation.stages_run == [(0, (0,)), (1, (0,))]
    assert simulation.observer.wasted_macs == {WasteCause.LEFT: 300}
    assert_nothing_in_flight(simulation)


def test_window_leaves_together_and_spends_no_more_than_its_budget(simulate):
    simulation = simulate(max_batch=3)
    costs, num_images, budget_macs = simulation.model.costs, 8, 3000
    policy = start_geometric(costs, num_images, budget_macs, (0.9, 0.8, 0.6, 0.0))

    asked = simulation.ask_window(range(num_images), window(simulation, policy))
    simulation.run()

    spent = sum(outcome.spent_macs for outcome in asked.outcomes)
    exits = [outcome.answer.record.exit_index for outcome in asked.outcomes]
    assert spent == policy.spent_macs <= budget_macs
    assert exits == [standing.exit_index for standing in policy.exits()]
    assert not simulation.observer.wasted_macs
    assert_nothing_in_flight(simulation)


def test_features_of_those_that_left_a_window_are_kept_until_it_ends(simulate):
    simulation = simulate(max_batch=2, confidences_by_image={0: (0.95, 0.95, 0.95, 0.95)})
    costs = simulation.model.costs
    policy = start_geometric(costs, 2, 5000, (0.9, 0.9, 0.9, 0.0))

    asked = simulation.ask_window([0, 1], window(simulation, policy))
    while len(simulation.runs) < 2:
        simulation.clock.call_next()
    leaver = weakref.ref(asked.cohort.images[0].held.handle)
    simulation.run()
    gc.collect()

    # What the second image left over deepened the first one, from the features it had.
    assert [outcome.answer.record.exit_index for outcome in asked.outcomes] == [3, 3]
    assert leaver() is None


def test_window_stands_where_it_stands_when_the_next_step_no_longer_fits(simulate):
    simulation = simulate(max_batch=2)
    policy = start_full_depth(simulation.model.costs, 4, every_classifier=True)

    asked = simulation.ask_window(
        range(4), window(simulation, policy, deadline_at=5.5), deadline_at=5.5
    )
    simulation.run()

    assert asked.settled_at == 4.0
    assert {outcome.answer.record.exit_index for outcome in asked.outcomes} == {1}
    assert {outcome.answer.reason for outcome in asked.outcomes} == {ExitReason.DEADLINE}


def test_window_ends_in_the_middle_of_a_step_when_time_runs_out(simulate):
    simulation = simulate(max_batch=2)
    policy = start_full_depth(simulation.model.costs, 4, every_classifier=True)
    stage_takes(simulation, 1, 1.8, batch_size=2)

    asked = simulation.ask_window(
        range(4), window(simulation, policy, deadline_at=4.5), deadline_at=4.5
    )
    simulation.run()

    assert [outcome.answer.record.exit_index for outcome in asked.outcomes] == [1, 1, 0, 0]
    assert asked.settled_at == pytest.approx(3.8)
    assert len(simulation.backend.calls) == 3
    assert_nothing_in_flight(simulation)


def test_cohorts_under_one_reservation_discharge_what_they_were_owed(simulate):
    simulation = simulate()
    terms = simulation.terms(num_images=6, num_at_once=3, deadline_at=90.0)
    charge = simulation.core.gate.reserve(terms, 0.0)

    for numbers in ([0, 1, 2], [3, 4, 5]):
        policy = start_full_depth(simulation.model.costs, 3, every_classifier=True)
        simulation.ask_window(numbers, window(simulation, policy), charge=charge)
        simulation.run()
    ledger = simulation.core.ledger
    owed_s, num_images = ledger.owed_s, ledger.num_in_flight
    ledger.release(charge)

    assert owed_s == pytest.approx(0.0)
    assert num_images == 3
    assert_nothing_in_flight(simulation)


def test_cohort_that_is_left_under_a_reservation_is_owed_nothing_more(simulate):
    simulation = simulate()
    charge = simulation.core.gate.reserve(
        simulation.terms(num_images=2, num_at_once=1, deadline_at=90.0), 0.0
    )
    policy = start_full_depth(simulation.model.costs, 1, every_classifier=True)

    asked = simulation.ask_window([0], window(simulation, policy), charge=charge)
    simulation.end(asked, Ending.LEFT)
    simulation.run()

    assert simulation.core.ledger.owed_s == pytest.approx(0.25)


def test_stopped_core_settles_who_runs_and_who_waits(simulate):
    simulation = simulate()

    running = simulation.ask(1)
    while not simulation.runs:
        simulation.clock.call_next()
    waiting = simulation.ask(2)
    simulation.core.settle_all(Ending.STOPPED, simulation.clock.now())
    simulation.run()

    assert isinstance(running.outcome.error, EngineStopped)
    assert isinstance(waiting.outcome.error, EngineStopped)
    assert running.outcome.spent_macs == 100
    assert simulation.observer.wasted_macs == {WasteCause.STOPPED: 100}
    assert_nothing_in_flight(simulation)


def test_observer_hears_of_batches_and_of_queues(simulate):
    simulation = simulate()

    simulation.ask(1)
    simulation.ask(2)
    simulation.run()

    assert simulation.observer.num_admitted == 2
    assert simulation.observer.finished[0] == (0, 2, 0, 200)
    assert simulation.observer.finished[-1] == (3, 2, 2, 880)
    assert not simulation.core.has_waiting
    assert len(simulation.observer.outcomes) == 2


def test_answer_carries_the_logits_of_its_own_row(simulate):
    simulation = simulate()

    asked = [simulation.ask(number) for number in (4, 2, 7)]
    simulation.run()

    labels = [int(np.argmax(one.outcome.answer.record.logits)) for one in asked]
    assert labels == [4, 2, 7]
    assert asked[0].outcome.answer.record.confidence == pytest.approx(0.9, abs=1e-6)


def test_lanes_share_what_waits(simulate):
    simulation = simulate(num_lanes=2)

    asked = [simulation.ask(number) for number in range(4)]
    simulation.run()

    assert simulation.stages_run[:2] == [(0, (0, 1)), (0, (2, 3))]
    assert {one.settled_at for one in asked} == {4.0}
    assert_nothing_in_flight(simulation)


def test_ten_clients_that_give_up_cost_no_further_stage(simulate):
    simulation = simulate(max_batch=16)

    asked = [simulation.ask(number) for number in range(10)]
    stays = simulation.ask(10)
    for one in asked:
        simulation.clock.call_at(0.5, partial(simulation.end, one, Ending.LEFT))
    simulation.run()

    assert simulation.stages_run == [(0, tuple(range(11))), (1, (10,)), (2, (10,)), (3, (10,))]
    assert simulation.observer.num_abandoned == 10
    assert simulation.observer.wasted_macs == {WasteCause.LEFT: 10 * 100}
    assert stays.outcome.answer.reason is ExitReason.LAST_EXIT
    assert_nothing_in_flight(simulation)


def test_place_of_a_client_that_gave_up_is_free_at_once(simulate):
    simulation = simulate(limits=EngineLimits(max_in_flight=1))

    first = simulation.ask(1, deadline_at=50.0)
    simulation.end(first, Ending.LEFT)
    second = simulation.ask(2, deadline_at=50.0)
    simulation.run()

    assert simulation.stages_run[0] == (0, (2,))
    assert second.outcome.answer is not None


def test_features_are_counted_until_the_last_of_their_batch_has_gone(simulate):
    simulation = simulate(confidences_by_image={1: (0.9, 0.9, 0.9, 0.9)})
    slow = simulation.ask(0, min_confidence=0.8)
    simulation.ask(1, min_confidence=0.8)

    while len(simulation.runs) < 2:
        simulation.clock.call_next()
    one_row = simulation.runs[1].images[0].held.handle.feature_bytes // 2
    held_bytes = simulation.core.ledger.held_bytes
    simulation.run()

    # One of two has its answer; the other's features keep both their rows alive.
    assert held_bytes == 2 * one_row > 0
    assert slow.outcome.answer is not None
    assert_nothing_in_flight(simulation)


def test_bytes_that_are_really_held_refuse_newcomers(simulate):
    simulation = simulate(limits=EngineLimits(max_feature_bytes=24))
    simulation.core.ledger.features.held_bytes = 20

    with pytest.raises(Overloaded):
        simulation.ask()


def test_stage_that_hangs_leaves_answers_where_there_are_some(simulate):
    simulation = simulate(max_batch=1)
    stage_takes(simulation, 1, 1e6)
    answered = simulation.ask(1, every_classifier=True)
    while len(simulation.runs) < 2:
        simulation.clock.call_next()
    unanswered = simulation.ask(2)

    core = simulation.core
    verdicts = [core.lanes.wedged(now, least_s=5.0) for now in (5.9, 6.1, 1e3)]
    core.settle_all(Ending.LOST, 1e3)
    for settlement in core.take_settlements():
        settlement.cohort.waiter.tell(settlement.outcomes)

    # Twice what is expected is the 99th percentile of a stage that has not run yet.
    assert verdicts == [None, None, simulation.runs[1]]
    assert answered.outcome.answer.record.exit_index == 0
    assert answered.outcome.answer.reason is ExitReason.FAILED
    assert isinstance(unanswered.outcome.error, ReplicaLost)


def test_charge_made_on_the_headers_is_judged_again_with_the_pixels(simulate):
    simulation = simulate()
    core = simulation.core
    terms = Terms(simulation.model.key, 1, 10.0, 10.0, arrived_at=0.0)
    charge = core.gate.reserve(terms, 0.0)

    core.gate.correct(charge, terms, 8.5)
    with pytest.raises(DeadlineInfeasible):
        core.gate.correct(charge, terms, 9.5)

    assert charge.is_released
    assert_nothing_in_flight(simulation)
