"""Lanes driven by the event loop, whose stages run at the other end of a socket."""

import asyncio
import itertools
import time
from collections.abc import Callable

import pytest

from service.backends.fake import FakeModel, numbered_images
from service.engine.clock import MonotonicClock
from service.engine.engine import Engine
from service.engine.lane_making import LaneOptions
from service.engine.lane_turns import Turn
from service.engine.loop_lane import LoopLane
from service.engine.request import EngineLimits, ExitLimits, ExitReason, ServedModel
from service.engine.stage_costs import StageCosts
from service.errors import BackendFailed, EngineStopped, Overloaded, ReplicaLost
from tests.engine.conftest import KEY
from tests.engine.piped_backend import PipedBackend, PipedLane

MODELS = {KEY: FakeModel((0.3, 0.5, 0.7, 0.9))}
MANY_TURNS = 1000
LIMIT_S = 10.0


class ScriptedTurns:
    """Has a lane sleep for as long as the script says, then until it is woken."""

    def __init__(self, *sleeps_s: float | None) -> None:
        self._sleeps_s = list(sleeps_s)
        self.is_defect = False
        self.is_asleep = False
        self.was_alive: list[bool] = []  # at each turn
        self.num_revived = 0
        self.num_stopped = 0

    def turn(self, lane, result):
        if self.is_defect:
            raise ZeroDivisionError("a defect, as scripted")
        self.was_alive.append(lane.is_alive)
        self.is_asleep = lane.is_alive
        sleep_s = self._sleeps_s.pop(0) if self._sleeps_s else None
        return Turn(None, is_over=False, sleep_s=sleep_s, settlements=())

    def after(self, turn):
        pass

    def oversleeps(self, lane):
        is_asleep, self.is_asleep = self.is_asleep, False
        return is_asleep

    def revived(self, lane):
        self.num_revived += 1

    def stopped(self, lane):
        self.num_stopped += 1

    def wake(self, lane: LoopLane) -> None:
        self.is_asleep = False
        lane.wake()


@pytest.fixture
def site():
    backend = PipedBackend(MODELS)
    yield backend.lanes[0]
    backend.close()


@pytest.fixture
def begin(site):
    """Starts a lane that takes scripted turns."""
    lanes = []

    def start(turns: ScriptedTurns) -> LoopLane:
        lane = LoopLane(0, site, turns, pause_s=0.0)
        lanes.append(lane)
        lane.start()
        return lane

    return start


@pytest.fixture
def make_engine(exit_costs, recording_observer):
    """Makes an engine on piped lanes, all of them started."""
    backends = []

    def make(num_lanes=1) -> tuple[Engine, tuple[PipedLane, ...]]:
        backend = PipedBackend(MODELS, num_lanes=num_lanes)
        backends.append(backend)
        engine = Engine(
            backend=backend,
            models={KEY: ServedModel(KEY, exit_costs, (1.0,) * 4, 8, (3, 2, 2))},
            costs=StageCosts(max_batch=4),
            limits=EngineLimits(),
            clock=MonotonicClock(),
            observer=recording_observer,
            lanes=LaneOptions(num_lanes),
        )
        engine.start()
        return engine, backend.lanes

    yield make
    for backend in backends:
        backend.close()


def submit(engine: Engine, number=0, *, deadline_s=None, every_classifier=False):
    now = time.monotonic()
    deadline_at = None if deadline_s is None else now + deadline_s
    return engine.submit(
        KEY,
        numbered_images([number]),
        ExitLimits(deadline_at, None, None, 0, 3, every_classifier),
        arrived_at=now,
        due_at=now + 1.0 if deadline_at is None else deadline_at,
    )


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""
    for _ in range(MANY_TURNS):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be so")


async def some_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_lane_looks_again_by_itself_when_its_sleep_is_over(begin):
    turns = ScriptedTurns(0.0, 0.0)

    begin(turns)
    await until(lambda: len(turns.was_alive) == 3)
    await some_turns()

    assert len(turns.was_alive) == 3


async def test_lane_that_is_woken_looks_once_and_not_again_when_its_sleep_would_be_over(begin):
    turns = ScriptedTurns(0.0)

    turns.wake(begin(turns))
    await some_turns()

    assert len(turns.was_alive) == 2


async def test_lane_that_dies_while_idle_rests_and_is_told_of_when_it_is_there_again(begin, site):
    turns = ScriptedTurns(60.0)
    lane = begin(turns)

    site.die()
    await until(lambda: site.num_revivals == 1)
    is_counted_idle, was_alive = turns.is_asleep, list(turns.was_alive)
    await some_turns()
    num_revived_too_soon = turns.num_revived
    site.say_done()
    await until(lambda: turns.num_revived == 1)

    assert not is_counted_idle
    assert was_alive == [True, False]
    assert num_revived_too_soon == 0
    assert lane.is_alive


async def test_lane_that_cannot_be_started_is_tried_again(begin, site):
    turns = ScriptedTurns()
    begin(turns)
    site.num_failing_revivals = 2

    site.die()
    await until(lambda: site.num_revivals == 3)
    site.say_done()
    await until(lambda: turns.num_revived == 1)

    assert site.num_revivals == 3


async def test_lane_that_dies_while_it_starts_is_started_again(begin, site):
    turns = ScriptedTurns()
    lane = begin(turns)

    site.die()
    await until(lambda: site.num_revivals == 1)
    site.die()
    await until(lambda: site.num_revivals == 2)
    was_alive = lane.is_alive
    site.say_done()
    await until(lambda: turns.num_revived == 1)

    assert not was_alive
    assert lane.is_alive


async def test_lane_that_is_gone_before_the_start_is_started_anew(begin, site):
    turns = ScriptedTurns()
    site.go()

    lane = begin(turns)
    await until(lambda: site.num_revivals == 1)
    site.say_done()
    await until(lambda: turns.num_revived == 1)

    assert turns.was_alive == [False]
    assert lane.is_alive


async def test_lane_that_stopped_hears_nothing_more(begin, site):
    turns = ScriptedTurns(0.0)
    lane = begin(turns)

    lane.wake()
    lane.stop()
    lane.stop()
    site.die()
    lane.wake()
    await some_turns()

    assert len(turns.was_alive) == 1
    assert turns.num_stopped == 1
    assert site.num_revivals == 0


async def test_lane_that_stopped_while_it_is_gone_is_not_started_again(begin, site):
    turns = ScriptedTurns()
    lane = begin(turns)
    site.num_failing_revivals = MANY_TURNS

    site.die()
    await until(lambda: site.num_revivals == 1)
    lane.stop()
    num_revivals = site.num_revivals
    await some_turns()

    assert site.num_revivals == num_revivals


async def test_defect_ends_the_lane_and_shows(begin, site):
    turns, defects = ScriptedTurns(), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: defects.append(context["exception"]))
    lane = begin(turns)

    turns.is_defect = True
    turns.wake(lane)
    await until(lambda: bool(defects))

    assert [type(defect) for defect in defects] == [ZeroDivisionError]
    assert turns.num_stopped == 1


async def test_request_is_answered_from_the_last_exit(make_engine):
    engine, _ = make_engine()

    outcome = await submit(engine).outcome
    await engine.drained()
    engine.close()

    assert outcome.answer.reason is ExitReason.LAST_EXIT
    assert (engine.num_in_flight, engine.feature_bytes) == (0, 0)


async def test_requests_of_one_turn_of_the_loop_run_together(make_engine):
    engine, (lane,) = make_engine()

    tickets = [submit(engine, number) for number in range(3)]
    outcomes = [await ticket.outcome for ticket in tickets]
    engine.close()

    assert set(lane.images) == {(0, 1, 2)}
    assert all(outcome.answer is not None for outcome in outcomes)


async def test_many_requests_on_two_lanes_are_all_answered(make_engine):
    engine, lanes = make_engine(num_lanes=2)

    tickets = [submit(engine, number) for number in range(50)]
    outcomes = [await ticket.outcome for ticket in tickets]
    engine.close()

    assert [outcome.answer.record.logits.argmax() for outcome in outcomes] == [
        number % 10 for number in range(50)
    ]
    assert all(lane.images for lane in lanes)


async def test_lane_that_dies_over_a_batch_fails_it_and_the_other_goes_on(make_engine):
    engine, (first, second) = make_engine(num_lanes=2)
    for lane in (first, second):
        lane.is_held = True

    tickets = [submit(engine, number) for number in range(2)]
    await until(lambda: bool(first.images and second.images))
    waiting = submit(engine, 2)
    first.die()
    second.is_held = False
    second.say_done()
    outcomes = [await ticket.outcome for ticket in (*tickets, waiting)]
    await engine.drained()
    engine.close()

    ((lost,), *_) = first.images
    assert isinstance(outcomes[lost].error, BackendFailed)
    assert all(outcome.answer for number, outcome in enumerate(outcomes) if number != lost)
    assert first.num_revivals == 1
    assert engine.num_in_flight == 0


async def test_image_with_an_answer_keeps_it_when_its_lane_dies(make_engine):
    engine, (lane,) = make_engine()

    ticket = submit(engine, every_classifier=True)
    await until(lambda: len(lane.images) == 1)
    lane.is_held = True
    await until(lambda: len(lane.images) == 2)
    lane.die()
    outcome = await ticket.outcome
    engine.close()

    assert outcome.answer.record.exit_index == 0
    assert outcome.answer.reason is ExitReason.FAILED


async def test_lane_that_is_there_again_takes_who_waited(make_engine):
    engine, (lane,) = make_engine()

    lane.die()
    await until(lambda: lane.num_revivals == 1)
    ticket = submit(engine)
    await some_turns()
    was_alive, num_batches = engine.is_alive, len(lane.images)
    lane.say_done()
    outcome = await ticket.outcome
    engine.close()

    assert (was_alive, num_batches) == (False, 0)
    assert outcome.answer is not None


async def test_lane_that_is_gone_does_not_share_what_waits(make_engine):
    engine, (first, second) = make_engine(num_lanes=2)

    first.die()
    await until(lambda: first.num_revivals == 1)
    tickets = [submit(engine, number) for number in range(4)]
    outcomes = [await ticket.outcome for ticket in tickets]
    engine.close()

    assert second.images[0] == (0, 1, 2, 3)
    assert all(outcome.answer is not None for outcome in outcomes)


async def test_while_all_lanes_are_gone_only_who_can_wait_for_one_is_admitted(make_engine):
    engine, (lane,) = make_engine()

    lane.die()
    await until(lambda: lane.num_revivals == 1)
    with pytest.raises(Overloaded):
        submit(engine, deadline_s=0.5)
    ticket = submit(engine, deadline_s=60.0)
    retry_after_s, backlog_s = engine.retry_after_s(), engine.backlog_s()
    lane.say_done()
    outcome = await ticket.outcome
    engine.close()

    assert outcome.answer is not None
    assert retry_after_s > 0.0
    assert backlog_s > 0.0


async def test_closed_engine_settles_who_runs_and_who_waits_and_is_empty(make_engine):
    engine, (lane,) = make_engine()
    lane.is_held = True

    running = submit(engine, 0)
    await until(lambda: bool(lane.images))
    waiting = submit(engine, 1)
    engine.close()
    lane.say_done()
    outcomes = [await running.outcome, await waiting.outcome]
    await engine.drained()

    assert {type(outcome.error) for outcome in outcomes} == {EngineStopped}
    assert not engine.is_alive
    assert (engine.num_in_flight, engine.feature_bytes) == (0, 0)
    assert len(lane.images) == 1


async def test_batch_that_cannot_even_be_begun_fails_and_its_lane_is_started_anew(make_engine):
    engine, (lane,) = make_engine()

    lane.go()
    failed = await submit(engine, 0).outcome
    await until(lambda: lane.num_revivals == 1)
    lane.say_done()
    answered = await submit(engine, 1).outcome
    await engine.drained()
    engine.close()

    assert isinstance(failed.error, BackendFailed)
    assert answered.answer is not None
    assert lane.num_revivals == 1


async def test_stage_that_hangs_ends_the_engine(make_engine):
    engine, (lane,) = make_engine()
    lane.is_held = True
    ticket, wedged = submit(engine), asyncio.Event()

    engine.watch(wedged_s=0.05, on_wedged=wedged.set)

    await asyncio.wait_for(wedged.wait(), LIMIT_S)
    assert isinstance((await ticket.outcome).error, ReplicaLost)


async def test_stage_that_gets_no_core_is_waited_for(make_engine, monkeypatch):
    engine, (lane,) = make_engine()
    lane.is_held = True
    num_looks, looked_often = itertools.count(), asyncio.Event()

    def without_core_s() -> float:
        if next(num_looks) > 3:
            looked_often.set()
        return time.monotonic()

    monkeypatch.setattr(lane, "waited_s", without_core_s)
    ticket = submit(engine)

    engine.watch(wedged_s=0.05, on_wedged=lambda: pytest.fail("it does not hang"))
    await asyncio.wait_for(looked_often.wait(), LIMIT_S)
    lane.is_held = False
    lane.say_done()

    assert (await ticket.outcome).answer is not None
