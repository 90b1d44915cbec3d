"""When the event loop needs a core of its own, and when the lanes may have it."""

import pytest

from service.engine.loop_load import LoopLoad


class CountedLanes:
    """Two lanes, and how many of them are to be active."""

    num_lanes = 2
    is_closed = False

    def __init__(self, *, has_deadlines: bool) -> None:
        self.has_deadlines = has_deadlines
        self.num_active = 2

    def keep_active(self, num_active: int) -> None:
        self.num_active = num_active


class Machine:
    """A clock, and what the loop's thread had of the processor."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.worked_s = 0.0

    def pass_by(self, seconds: float, *, share: float) -> None:
        self.now_s += seconds
        self.worked_s += share * seconds


@pytest.fixture
def weigh_at():
    """Returns how many lanes are active once the loop has had such shares of a core."""

    async def weigh(*shares: float, has_deadlines=True) -> int:
        lanes, machine = CountedLanes(has_deadlines=has_deadlines), Machine()
        load = LoopLoad(lanes, thread_time=lambda: machine.worked_s, now=lambda: machine.now_s)
        for share in shares:
            for _ in range(40):
                machine.pass_by(0.05, share=share)
                load.weigh()
        return lanes.num_active

    return weigh


async def test_a_lane_rests_while_the_event_loop_is_busy(weigh_at):
    assert await weigh_at(0.4) == 1


async def test_all_lanes_run_while_the_event_loop_is_not(weigh_at):
    assert await weigh_at(0.1) == 2
    assert await weigh_at(0.4, 0.1) == 2


async def test_between_busy_and_quiet_nothing_changes(weigh_at):
    assert await weigh_at(0.26) == 2
    assert await weigh_at(0.4, 0.26) == 1


async def test_without_deadlines_throughput_is_all_that_counts(weigh_at):
    assert await weigh_at(0.9, has_deadlines=False) == 2


async def test_only_a_crowd_of_requests_is_let_gather():
    lanes, machine = CountedLanes(has_deadlines=True), Machine()
    load = LoopLoad(lanes, thread_time=lambda: machine.worked_s, now=lambda: machine.now_s)
    gathers = []
    for share in (0.35, 0.6, 0.3, 0.2):
        for _ in range(40):
            machine.pass_by(0.05, share=share)
            load.weigh()
        gathers.append(load.is_crowded)

    assert gathers == [False, True, True, False]


async def test_one_busy_moment_changes_nothing(weigh_at):
    lanes, machine = CountedLanes(has_deadlines=True), Machine()
    load = LoopLoad(lanes, thread_time=lambda: machine.worked_s, now=lambda: machine.now_s)

    machine.pass_by(0.05, share=1.0)
    load.weigh()

    assert lanes.num_active == 2
