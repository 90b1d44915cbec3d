"""The engine on its real thread and a real event loop, held at gates where order matters."""

import asyncio
import threading
import time
import weakref
from typing import Any

import pytest

from model_store.policies.full_depth import start_full_depth
from service.backends.base import StageKey
from service.backends.fake import FailAt, FakeBackend, FakeModel, Gate, numbered_images
from service.engine.clock import MonotonicClock
from service.engine.engine import Engine
from service.engine.lane_making import LaneOptions
from service.engine.observer import WasteCause
from service.engine.request import (
    EngineLimits,
    ExitLimits,
    ExitReason,
    ImageOutcome,
    ServedModel,
    Terms,
)
from service.engine.stage_costs import StageCosts
from service.engine.ticket import Ticket
from service.engine.window_policy import WindowCohortPolicy
from service.errors import (
    DeadlineInfeasible,
    DeadlineMissed,
    EngineStopped,
    Overloaded,
    ReplicaLost,
)

LIMIT_S = 10.0


@pytest.fixture
def make_engine(model_key, exit_costs, recording_observer):
    engines = []

    def make(*hooks, limits=None, is_started=True, confidences=(0.3, 0.5, 0.7, 0.9), num_lanes=1):
        backend = FakeBackend({model_key: FakeModel(confidences)}, hooks=hooks)
        engine = Engine(
            backend=backend,
            models={model_key: ServedModel(model_key, exit_costs, (1.0,) * 4, 8, (3, 2, 2))},
            costs=StageCosts(max_batch=4),
            limits=limits or EngineLimits(),
            clock=MonotonicClock(),
            observer=recording_observer,
            lanes=LaneOptions(num_lanes, niceness=1),
        )
        engines.append((engine, hooks))
        if is_started:
            engine.start()
        return engine

    yield make
    for engine, hooks in engines:
        for hook in hooks:
            if isinstance(hook, Gate):
                hook.opened.set()
        engine.close()


@pytest.fixture
def submit(model_key):
    """Hands an engine one image."""

    def hand_over(
        engine, number=0, *, deadline_s=None, every_classifier=False, min_exit=0, reservation=None
    ) -> Ticket:
        now = time.monotonic()
        deadline_at = None if deadline_s is None else now + deadline_s
        ticket: Ticket = engine.submit(
            model_key,
            numbered_images([number]),
            ExitLimits(deadline_at, None, None, min_exit, 3, every_classifier),
            arrived_at=now,
            due_at=now + 1.0 if deadline_at is None else deadline_at,
            reservation=reservation,
        )
        return ticket

    return hand_over


@pytest.fixture
def classify(submit):
    """Asks an engine for one image, and leaves when cancelled."""

    async def ask(engine, number=0, **given):
        ticket = submit(engine, number, **given)
        try:
            return await ticket.outcome
        finally:
            ticket.abandon()

    return ask


async def entered(gate: Gate) -> None:
    """Wait until the lane stands at a gate."""
    assert await asyncio.to_thread(gate.entered.wait, LIMIT_S)


async def test_request_is_answered_from_the_last_exit(make_engine, classify):
    engine = make_engine()

    outcome = await classify(engine)

    assert outcome.answer.reason is ExitReason.LAST_EXIT
    assert engine.is_alive
    await engine.drained()
    assert (engine.num_in_flight, engine.feature_bytes) == (0, 0)


async def test_many_requests_at_once_are_all_answered(make_engine, classify):
    engine = make_engine()

    outcomes = await asyncio.gather(*(classify(engine, number) for number in range(50)))

    assert [outcome.answer.record.logits.argmax() for outcome in outcomes] == [
        number % 10 for number in range(50)
    ]
    await engine.drained()


async def test_window_is_answered_in_the_order_of_its_images(make_engine, model_key, exit_costs):
    engine = make_engine()
    policy = WindowCohortPolicy(
        start_full_depth(exit_costs, 9, every_classifier=False),
        engine.times(model_key),
        deadline_at=None,
        margin_s=0.0,
    )

    outcomes = await engine.run(
        model_key, numbered_images(range(9)), policy, arrived_at=0.0, due_at=1.0, deadline_at=None
    )

    assert [outcome.answer.record.logits.argmax() for outcome in outcomes] == list(range(9))


async def test_deadline_is_kept_while_a_stage_hangs(make_engine, classify, recording_observer):
    gate = Gate(1)
    engine = make_engine(gate)

    outcome = await classify(engine, deadline_s=0.2)

    assert outcome.answer.reason is ExitReason.DEADLINE
    assert outcome.answer.record.exit_index == 0
    assert outcome.spent_macs == 110 + 200
    assert recording_observer.wasted_macs == {WasteCause.LATE: 200}
    gate.opened.set()
    await engine.drained()
    assert engine.num_in_flight == 0


async def test_deadline_without_an_exit_is_missed_then(make_engine, classify):
    gate = Gate(0)
    engine = make_engine(gate)

    outcome = await classify(engine, deadline_s=0.05)

    assert isinstance(outcome.error, DeadlineMissed)


async def test_cancelled_request_runs_no_further_stage(make_engine, classify, recording_observer):
    gate = Gate(1)
    engine = make_engine(gate)

    task = asyncio.create_task(classify(engine))
    await entered(gate)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await engine.drained()

    assert (engine.num_in_flight, engine.feature_bytes) == (0, 0)
    assert [stage for stage, *_ in recording_observer.finished] == [0, 1]
    assert recording_observer.wasted_macs == {WasteCause.LEFT: 300}


async def test_request_cancelled_before_it_began_leaves_nothing(make_engine, classify):
    gate = Gate(0)
    engine = make_engine(gate)

    running = asyncio.create_task(classify(engine, 1))
    await entered(gate)
    waiting = asyncio.create_task(classify(engine, 2))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.opened.set()
    outcome = await running
    await engine.drained()

    assert outcome.answer is not None
    assert waiting.cancelled()
    assert engine.num_in_flight == 0


async def test_request_beyond_the_limit_is_refused_at_once(
    make_engine, classify, recording_observer
):
    gate = Gate(0)
    engine = make_engine(gate, limits=EngineLimits(max_in_flight=1))

    running = asyncio.create_task(classify(engine))
    await entered(gate)
    with pytest.raises(Overloaded):
        await classify(engine)
    gate.opened.set()
    await running

    assert [type(error) for error in recording_observer.refusals] == [Overloaded]


async def test_deadline_that_not_even_an_idle_server_keeps_is_refused(
    make_engine, classify, model_key
):
    engine = make_engine()
    engine.stage_costs.profile(StageKey(model_key, 0), 1, trunk_s=5.0, classifier_s=1.0)

    with pytest.raises(DeadlineInfeasible) as refused:
        await classify(engine, deadline_s=1.0)

    assert refused.value.minimum_s == pytest.approx(6.002)


async def test_admission_can_be_asked_before_there_is_an_image(
    make_engine, model_key, recording_observer
):
    engine = make_engine(limits=EngineLimits(max_in_flight=10, max_feature_bytes=40))
    now = time.monotonic()

    engine.check(Terms(model_key, 1, due_at=now, deadline_at=now + 1.0))

    with pytest.raises(DeadlineInfeasible):
        engine.check(Terms(model_key, 1, due_at=now, deadline_at=now - 1.0))
    with pytest.raises(ValueError, match="use windows"):
        engine.check(Terms(model_key, 6, due_at=now, deadline_at=None))
    assert engine.max_cohort(model_key) == 5
    assert len(recording_observer.refusals) == 1
    assert engine.num_in_flight == 0


async def test_reservation_holds_room_between_windows(make_engine, model_key, exit_costs, classify):
    engine = make_engine(limits=EngineLimits(max_in_flight=2))

    with engine.reserve(Terms(model_key, 4, 1.0, None, num_at_once=2)) as reservation:
        for numbers in ([0, 1], [2, 3]):
            policy = WindowCohortPolicy(
                start_full_depth(exit_costs, 2, every_classifier=False),
                engine.times(model_key),
                deadline_at=None,
                margin_s=0.0,
            )
            outcomes = await engine.run(
                model_key,
                numbered_images(numbers),
                policy,
                arrived_at=0.0,
                due_at=1.0,
                deadline_at=None,
                reservation=reservation,
            )
            assert all(outcome.answer is not None for outcome in outcomes)
            with pytest.raises(Overloaded):
                await classify(engine)

    await engine.drained()
    assert engine.num_in_flight == 0


async def test_backlog_is_what_runs_and_what_is_owed_to_those_with_a_deadline(
    make_engine, classify, model_key
):
    gate = Gate(0)
    engine = make_engine(gate)
    for size in (1, 2, 4):
        engine.stage_costs.profile(StageKey(model_key, 0), size, trunk_s=1.0, classifier_s=0.0)

    running = asyncio.create_task(classify(engine, deadline_s=60.0))
    await entered(gate)
    waiting = [asyncio.create_task(classify(engine, deadline_s=60.0)) for _ in range(4)]
    waiting.append(asyncio.create_task(classify(engine)))
    await asyncio.sleep(0)
    backlog_s, retry_after_s = engine.backlog_s(), engine.retry_after_s()
    gate.opened.set()
    await asyncio.gather(running, *waiting)
    await engine.drained()

    # A second for what runs, another for a batch of four; who has no deadline is owed nothing.
    assert backlog_s == pytest.approx(2.0, abs=0.2)
    assert retry_after_s >= backlog_s
    assert engine.backlog_s() == 0.0


async def test_closed_engine_settles_everybody_and_takes_nobody(make_engine, classify, model_key):
    gate = Gate(0)
    engine: Engine = make_engine(gate, lambda call: engine.close())

    running = asyncio.create_task(classify(engine, 1))
    await entered(gate)
    waiting = asyncio.create_task(classify(engine, 2))
    await asyncio.sleep(0)
    gate.opened.set()
    outcomes = [await running, await waiting]

    assert {type(outcome.error) for outcome in outcomes} == {EngineStopped}
    assert not engine.is_alive
    with pytest.raises(EngineStopped):
        await classify(engine)
    with pytest.raises(EngineStopped):
        engine.check(Terms(model_key, 1, 1.0, None))
    await engine.drained()
    assert engine.num_in_flight == 0


async def test_engine_closed_before_it_started_settles_who_waited(make_engine, classify):
    engine = make_engine(is_started=False)

    waiting = asyncio.create_task(classify(engine))
    await asyncio.sleep(0)
    engine.close()
    outcome = await waiting

    assert isinstance(outcome.error, EngineStopped)
    assert not engine.is_alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_defect_in_the_loop_settles_everybody_and_ends_it(make_engine, classify):
    gate = Gate(0)

    def defect(call):
        if call.stage.stage_index == 1:
            raise ZeroDivisionError("a defect, as scripted")

    engine = make_engine(gate, defect)

    running = asyncio.create_task(classify(engine, 1))
    await entered(gate)
    waiting = asyncio.create_task(classify(engine, 2))
    await asyncio.sleep(0)
    gate.opened.set()
    outcomes = [await running, await waiting]
    await engine.drained()

    assert {type(outcome.error) for outcome in outcomes} == {EngineStopped}
    assert not engine.is_alive
    assert engine.num_in_flight == 0


async def test_request_cancelled_while_the_engine_ends_leaves_nothing(make_engine, classify):
    gate = Gate(0)
    engine: Engine = make_engine(lambda call: engine.close(), gate)

    running = asyncio.create_task(classify(engine))
    await entered(gate)
    running.cancel()
    await asyncio.wait([running])

    # Whoever comes first: told that the engine stopped, or gone.
    assert running.cancelled() or isinstance(running.result().error, EngineStopped)
    assert engine.num_in_flight == 0


def test_settlement_for_a_closed_event_loop_is_passed_over(make_engine, classify):
    gate = Gate(0)
    engine = make_engine(gate)

    async def ask_and_go() -> tuple[asyncio.Task[Any], asyncio.Task[None]]:
        task = asyncio.create_task(classify(engine))
        await entered(gate)
        draining = asyncio.create_task(engine.drained())
        await asyncio.sleep(0)
        return task, draining

    loop = asyncio.new_event_loop()
    task, draining = loop.run_until_complete(ask_and_go())
    draining.cancel()
    task.cancel()
    loop.run_until_complete(asyncio.wait([task, draining]))
    loop.close()
    gate.opened.set()
    engine.close()

    assert engine.num_in_flight == 0


async def test_failed_stage_does_not_end_the_engine(make_engine, classify):
    engine = make_engine(FailAt(3, frozenset({1})))

    failed = await classify(engine, 1, every_classifier=True)
    whole = await classify(engine, 2)

    assert failed.answer.reason is ExitReason.FAILED
    assert whole.answer.reason is ExitReason.LAST_EXIT


async def test_lanes_run_side_by_side(make_engine, classify):
    meeting = threading.Barrier(2, timeout=LIMIT_S)

    def meet(call):
        if call.stage.stage_index == 0:
            meeting.wait()

    engine = make_engine(meet, num_lanes=2)

    outcomes = await asyncio.gather(classify(engine, 1), classify(engine, 2))

    assert all(outcome.answer is not None for outcome in outcomes)


async def test_ten_clients_that_give_up_run_no_further_stage(
    make_engine, classify, recording_observer
):
    gate = Gate(1)
    engine = make_engine(gate, num_lanes=2)

    clients = [asyncio.create_task(classify(engine, number)) for number in range(10)]
    await entered(gate)
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    freed = engine.num_in_flight
    gate.opened.set()
    await engine.drained()

    assert freed == 0
    assert all(client.cancelled() for client in clients)
    assert {stage for stage, *_ in recording_observer.finished} <= {0, 1}
    assert recording_observer.num_abandoned == 10


async def test_clients_that_give_up_while_batches_form_hang_nobody(make_engine, classify):
    engine = make_engine(num_lanes=2)

    clients = [asyncio.create_task(classify(engine, number)) for number in range(200)]
    for step, client in enumerate(clients):
        if step % 3 == 0:
            client.cancel()
        if step % 7 == 0:
            await asyncio.sleep(0)
    done = await asyncio.gather(*clients, return_exceptions=True)
    await engine.drained()

    outcomes = [one for one in done if isinstance(one, ImageOutcome)]
    assert len(outcomes) >= 100
    assert all(outcome.answer is not None for outcome in outcomes)
    assert (engine.num_in_flight, engine.feature_bytes) == (0, 0)


async def test_stage_that_hangs_ends_the_engine_and_answers_who_can_be(make_engine, classify):
    gate = Gate(1)
    engine = make_engine(gate)
    wedged = asyncio.Event()
    engine.watch(wedged_s=0.2, on_wedged=wedged.set)

    answered = asyncio.create_task(classify(engine, 1, every_classifier=True))
    await entered(gate)
    unanswered = asyncio.create_task(classify(engine, 2))
    await asyncio.wait_for(wedged.wait(), LIMIT_S)

    assert (await answered).answer.record.exit_index == 0
    assert isinstance((await unanswered).error, ReplicaLost)
    assert not engine.is_alive
    with pytest.raises(ReplicaLost):
        await classify(engine)


async def test_watch_over_an_engine_that_is_well_ends_with_it(make_engine, classify):
    engine, told, ended = make_engine(), [], asyncio.Event()

    def on_wedged():
        told.append(True)

    weakref.finalize(on_wedged, ended.set)  # once nobody is left who could call it
    engine.watch(wedged_s=1.0, on_wedged=on_wedged)
    del on_wedged
    answered = await classify(engine)
    is_watched = not ended.is_set()
    engine.close()
    await asyncio.wait_for(ended.wait(), LIMIT_S)

    assert answered.answer is not None
    assert is_watched
    assert not told


async def test_request_admitted_on_its_headers_is_handed_over_under_its_reservation(
    make_engine, submit, model_key
):
    engine = make_engine(limits=EngineLimits(max_in_flight=1))
    deadline_at = time.monotonic() + 60.0

    reservation = engine.reserve(Terms(model_key, 1, deadline_at, deadline_at))
    with pytest.raises(Overloaded):
        submit(engine, deadline_s=60.0)
    ticket = submit(engine, deadline_s=60.0, reservation=reservation)
    outcome = await ticket.outcome
    reservation.release()
    await engine.drained()

    assert outcome.answer is not None
    assert engine.num_in_flight == 0


async def test_request_refused_under_its_reservation_counts_as_refused_alone(
    make_engine, submit, model_key, recording_observer
):
    engine = make_engine()
    deadline_at = time.monotonic() + 60.0

    with engine.reserve(Terms(model_key, 1, deadline_at, deadline_at)) as reservation:
        with pytest.raises(DeadlineInfeasible):
            submit(engine, deadline_s=-1.0, reservation=reservation)
        num_in_flight = engine.num_in_flight

    assert num_in_flight == 0
    assert len(recording_observer.refusals) == 1
    assert (recording_observer.num_admitted, recording_observer.num_abandoned) == (0, 0)


async def test_reservation_that_was_released_admits_nobody(make_engine, submit, model_key):
    engine = make_engine()
    deadline_at = time.monotonic() + 60.0
    reservation = engine.reserve(Terms(model_key, 1, deadline_at, deadline_at))

    reservation.release()
    with pytest.raises(ValueError, match="released"):
        submit(engine, deadline_s=60.0, reservation=reservation)

    assert engine.num_in_flight == 0


async def test_work_without_a_deadline_leaves_room_for_the_others(make_engine, submit):
    gate = Gate(0)
    engine = make_engine(gate, limits=EngineLimits(max_in_flight=8))

    tickets = [submit(engine) for _ in range(6)]
    with pytest.raises(Overloaded):
        submit(engine)
    tickets.append(submit(engine, deadline_s=60.0))
    gate.opened.set()
    outcomes = [await ticket.outcome for ticket in tickets]

    assert all(outcome.answer is not None for outcome in outcomes)


def test_warm_up_profiles_every_stage(make_engine, model_key):
    engine = make_engine(is_started=False)

    engine.warm_up()

    at_once = [engine.expected_exit_s(model_key, 0, size) for size in (1, 2, 4)]
    assert all(seconds > 0.0 for seconds in at_once)
    assert engine.expected_exit_s(model_key, 0, 4) < engine.expected_exit_s(model_key, 3, 4)
    assert engine.retry_after_s() == 0.0


async def test_a_lane_that_rests_takes_nothing_until_it_is_active_again(make_engine, classify):
    gate, threads, both = Gate(0), set(), threading.Event()

    def note(call):
        threads.add(threading.get_ident())
        if len(threads) > 1:
            both.set()

    engine = make_engine(note, gate, num_lanes=2)
    engine.keep_active(1)

    first = asyncio.create_task(classify(engine, 0))
    await entered(gate)
    # All of these wait while the first is held: a second lane, were it not at rest, would be free.
    others = [asyncio.create_task(classify(engine, number)) for number in range(1, 20)]
    await asyncio.sleep(0)
    gate.opened.set()
    outcomes = await asyncio.gather(first, *others)
    num_while_one_rests = len(threads)

    gate.entered.clear()
    gate.opened.clear()
    held = asyncio.create_task(classify(engine, 20))
    await entered(gate)
    waiting = asyncio.create_task(classify(engine, 21))
    await asyncio.sleep(0)
    engine.keep_active(2)
    assert await asyncio.to_thread(both.wait, LIMIT_S)
    gate.opened.set()
    outcomes += await asyncio.gather(held, waiting)

    assert num_while_one_rests == 1
    assert all(outcome.answer for outcome in outcomes)


async def test_lanes_at_rest_end_with_the_others(make_engine):
    engine = make_engine(num_lanes=2)
    engine.keep_active(1)

    engine.close()

    assert not engine.is_alive
