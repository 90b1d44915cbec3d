import asyncio
import threading
from collections.abc import Coroutine
from typing import TypeVar

import pytest

from service.errors import ImageUndecodable, Overloaded, ShuttingDown
from service.turns import TurnPool

T = TypeVar("T")


class SteppingClock:
    """Says that every look at it took so long."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self._step_s
        return self._now


@pytest.fixture
def gate():
    """Holds the pool's thread until it is opened."""
    opened = threading.Event()
    yield opened
    opened.set()


def make_pool(*, max_waiting: int = 8, step_s: float = 0.0) -> TurnPool:
    return TurnPool(num_threads=1, max_waiting=max_waiting, now=SteppingClock(step_s))


async def begun(work: Coroutine[None, None, T]) -> asyncio.Task[T]:
    """Start work and return once it waits in the pool."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    return task


async def test_every_item_is_done_in_order():
    pool = make_pool()

    outcomes = await pool.run(1000, lambda index: index * 2)

    assert outcomes == tuple(range(0, 2000, 2))
    assert pool.waiting == 0


async def test_a_refused_item_leaves_the_others_alone():
    refusal = ImageUndecodable("broken")

    def item_at(index: int) -> int:
        if index == 1:
            raise refusal
        return index

    assert await make_pool().run(3, item_at) == (0, refusal, 2)


async def test_a_defect_reaches_the_caller():
    pool = make_pool()

    with pytest.raises(ZeroDivisionError):
        await pool.run(3, lambda index: 1 // index)

    assert pool.waiting == 0


async def test_long_work_lets_others_have_their_turn(gate: threading.Event):
    pool = make_pool(step_s=1.0)  # every turn is over after one item
    order: list[str] = []

    def long_item(index: int) -> None:
        gate.wait()
        order.append(f"long {index}")

    long = await begun(pool.run(3, long_item))
    short = await begun(pool.run(1, lambda _: order.append("short")))
    gate.set()
    await asyncio.gather(long, short)

    assert order == ["long 0", "short", "long 1", "long 2"]


async def test_cancelled_work_has_no_further_turn(gate: threading.Event):
    pool = make_pool(step_s=1.0)
    in_turn = threading.Event()
    done: list[int] = []

    def item_at(index: int) -> None:
        in_turn.set()
        gate.wait()
        done.append(index)

    task = await begun(pool.run(100, item_at))
    await asyncio.to_thread(in_turn.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await pool.run(1, lambda _: None)

    assert done == [0]
    assert pool.waiting == 0


async def test_work_cancelled_while_it_waits_is_never_begun(gate: threading.Event):
    pool = make_pool()
    done: list[int] = []

    blocker = await begun(pool.run(1, lambda _: gate.wait()))
    task = await begun(pool.run(1, done.append))
    task.cancel()
    await asyncio.wait([task])
    gate.set()
    await blocker
    await pool.run(1, lambda _: None)

    assert done == []


async def test_a_full_queue_refuses_and_says_when_to_come_back(gate: threading.Event):
    pool = make_pool(max_waiting=1)
    idle_s = pool.retry_after_s()

    waiting = await begun(pool.run(10, lambda _: gate.wait()))
    with pytest.raises(Overloaded) as refused:
        await pool.run(1, lambda index: index)
    gate.set()
    await waiting

    assert refused.value.retry_after_s == pytest.approx(10 * idle_s)
    assert await pool.run(1, lambda index: index) == (0,)


async def test_the_time_to_come_back_is_learnt_from_what_ran():
    pool = make_pool(step_s=3.0)
    before_s = pool.retry_after_s()

    await pool.run(200, lambda index: index)

    assert before_s < 0.01
    assert pool.retry_after_s() == pytest.approx(3.0, rel=0.01)


async def test_a_closed_pool_takes_nothing_and_finishes_the_turn_it_gave(gate: threading.Event):
    pool = make_pool(step_s=1.0)

    one = await begun(pool.run(1, lambda _: gate.wait()))
    many = await begun(pool.run(2, lambda index: index))
    pool.close()
    gate.set()

    assert await one == (True,)
    with pytest.raises(ShuttingDown):
        await many
    with pytest.raises(ShuttingDown):
        await pool.run(1, lambda index: index)
