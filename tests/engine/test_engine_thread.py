"""The engine on its real thread and a real event loop, held at gates where order matters."""

import asyncio
import time
from typing import Any

import pytest

from model_store.policies.full_depth import start_full_depth
from service.backends.base import StageKey
from service.backends.fake import FailAt, FakeBackend, FakeModel, Gate, numbered_images
from service.engine.clock import MonotonicClock
from service.engine.engine import Engine
from service.engine.exit_policy import LoneRequestPolicy
from service.engine.observer import WasteCause
from service.engine.request import EngineLimits, ExitLimits, ExitReason, ServedModel, Terms
from service.engine.stage_costs import StageCosts
from service.engine.window_policy import WindowCohortPolicy
from service.errors import DeadlineInfeasible, DeadlineMissed, EngineStopped, Overloaded

LIMIT_S = 10.0


@pytest.fixture
def make_engine(model_key, exit_costs, recording_observer):
    engines = []

    def make(*hooks, limits=None, is_started=True, confidences=(0.3, 0.5, 0.7, 0.9)):
        backend = FakeBackend({model_key: FakeModel(confidences)}, hooks=hooks)
        engine = Engine(
            backend=backend,
            models={model_key: ServedModel(model_key, exit_costs, (1.0,) * 4, 8, (3, 2, 2))},
            costs=StageCosts(max_batch=4),
            limits=limits or EngineLimits(),
            clock=MonotonicClock(),
            observer=recording_observer,
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
def classify(model_key, exit_costs):
    """Asks an engine for one image."""

    def ask(engine, number=0, *, deadline_s=None, every_classifier=False, min_exit=0):
        now = time.monotonic()
        deadline_at = None if deadline_s is None else now + deadline_s
        limits = ExitLimits(deadline_at, None, None, min_exit, 3, every_classifier)
        times = engine.times(model_key)
        policy = LoneRequestPolicy(
            limits, exit_costs, times, margin_s=engine.limits.deadline_margin_s
        )
        return engine.run(
            model_key,
            numbered_images([number]),
            policy,
            due_at=now + 1.0 if deadline_at is None else deadline_at,
            deadline_at=deadline_at,
            mandatory_exit=min_exit,
        )

    return ask


async def entered(gate: Gate) -> None:
    """Wait until the lane stands at a gate."""
    assert await asyncio.to_thread(gate.entered.wait, LIMIT_S)


async def test_request_is_answered_from_the_last_exit(make_engine, classify):
    engine = make_engine()

    (outcome,) = await classify(engine)

    assert outcome.answer.reason is ExitReason.LAST_EXIT
    assert engine.is_alive
    await engine.drained()
    assert (engine.num_in_flight, engine.feature_bytes) == (0, 0)


async def test_many_requests_at_once_are_all_answered(make_engine, classify):
    engine = make_engine()

    outcomes = await asyncio.gather(*(classify(engine, number) for number in range(50)))

    assert [outcome.answer.record.logits.argmax() for (outcome,) in outcomes] == [
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
        model_key, numbered_images(range(9)), policy, due_at=1.0, deadline_at=None
    )

    assert [outcome.answer.record.logits.argmax() for outcome in outcomes] == list(range(9))


async def test_deadline_is_kept_while_a_stage_hangs(make_engine, classify, recording_observer):
    gate = Gate(1)
    engine = make_engine(gate)

    (outcome,) = await classify(engine, deadline_s=0.2)

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

    (outcome,) = await classify(engine, deadline_s=0.05)

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
    (outcome,) = await running
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
                due_at=1.0,
                deadline_at=None,
                reservation=reservation,
            )
            assert all(outcome.answer is not None for outcome in outcomes)
            with pytest.raises(Overloaded):
                await classify(engine)

    await engine.drained()
    assert engine.num_in_flight == 0


async def test_backlog_is_what_is_owed_to_those_in_flight(make_engine, classify, model_key):
    gate = Gate(0)
    engine = make_engine(gate)
    engine.stage_costs.profile(StageKey(model_key, 0), 4, trunk_s=4.0, classifier_s=0.0)

    running = asyncio.create_task(classify(engine))
    await entered(gate)
    backlog_s, retry_after_s = engine.backlog_s(), engine.retry_after_s()
    gate.opened.set()
    await running
    await engine.drained()

    assert backlog_s == pytest.approx(1.0)
    assert retry_after_s >= 1.0
    assert engine.backlog_s() == 0.0


async def test_closed_engine_settles_everybody_and_takes_nobody(make_engine, classify, model_key):
    gate = Gate(0)
    engine: Engine = make_engine(gate, lambda call: engine.close())

    running = asyncio.create_task(classify(engine, 1))
    await entered(gate)
    waiting = asyncio.create_task(classify(engine, 2))
    await asyncio.sleep(0)
    gate.opened.set()
    outcomes = [*(await running), *(await waiting)]

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
    (outcome,) = await waiting

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
    outcomes = [*(await running), *(await waiting)]
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

    assert running.cancelled()
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

    (failed,) = await classify(engine, 1, every_classifier=True)
    (whole,) = await classify(engine, 2)

    assert failed.answer.reason is ExitReason.FAILED
    assert whole.answer.reason is ExitReason.LAST_EXIT


def test_warm_up_profiles_every_stage(make_engine, model_key):
    engine = make_engine(is_started=False)

    engine.warm_up()

    at_once = [engine.expected_exit_s(model_key, 0, size) for size in (1, 2, 4)]
    assert all(seconds > 0.0 for seconds in at_once)
    assert engine.expected_exit_s(model_key, 0, 4) < engine.expected_exit_s(model_key, 3, 4)
    assert engine.retry_after_s() == 0.0
