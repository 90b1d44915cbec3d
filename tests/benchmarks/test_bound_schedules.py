"""Whatever a schedule achieves, the bound is no lower; schedules are tried exhaustively."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.serving.bound import GRACE_S, Curves, TraceBound, bound_on
from benchmarks.serving.clairvoyant import fair_work_s
from benchmarks.serving.fastest_stages import Layout, Part, PartTime, StageTimes
from benchmarks.serving.stopping_rules import Gain, ImageTimes
from benchmarks.serving.trace import Trace
from benchmarks.serving.value_function import ValueFunction

# Two exits, two bins at the first: of the unsure half exit 0 gets 1 in 3 right and exit 1 all but
# one in 3; of the sure half exit 0 gets all right and exit 1 spoils one in 3.
CONFIDENCES = np.array([[0.1, 0.5], [0.2, 0.6], [0.3, 0.7], [0.7, 0.8], [0.8, 0.9], [0.9, 1.0]])
IS_RIGHT = np.array([[0, 1], [1, 1], [0, 0], [1, 1], [1, 1], [1, 0]], dtype=bool)
TIMES = ImageTimes(trunk_s=(2.0, 1.0), classifier_s=(1.0, 1.0))
FIRST_S, ON_S, STRAIGHT_S = 3, 2, 4
NEW, UNSURE, SURE, CLOSED = range(4)
ACCURACY_AT_0 = {UNSURE: 1 / 3, SURE: 1.0}
ACCURACY_AT_1 = {UNSURE: 2 / 3, SURE: 2 / 3}


States = tuple[int, ...]


class OneLane:
    """Tries everything that one lane can do, knowing all arrivals but not how sure an exit is."""

    def __init__(self, arrivals: Sequence[int], deadline: int) -> None:
        self.arrivals = arrivals
        self.due = [arrival + deadline for arrival in arrivals]
        self.best = cache(self._best)

    def _best(self, now: int, states: States) -> float:
        """Most right answers that can still be expected."""
        states = tuple(CLOSED if now >= d else s for s, d in zip(states, self.due, strict=True))
        later = [arrival for arrival in self.arrivals if arrival > now]
        waited = self.best(min(later), states) if later else 0.0
        open_ones = [i for i, s in enumerate(states) if s != CLOSED and self.arrivals[i] <= now]
        return max([waited, *(value for i in open_ones for value in self.values(now, states, i))])

    def values(self, now: int, states: States, i: int) -> Iterator[float]:
        """Of all that can be done with one image now."""
        if states[i] != NEW:
            gain = ACCURACY_AT_1[states[i]] - ACCURACY_AT_0[states[i]]
            yield gain + self.after(now + ON_S, states, i, CLOSED)
            return
        yield 2 / 3 + self.after(now + STRAIGHT_S, states, i, CLOSED)
        yield sum(
            0.5 * (accuracy + self.after(now + FIRST_S, states, i, sureness))
            for sureness, accuracy in ACCURACY_AT_0.items()
        )

    def after(self, then: int, states: States, i: int, state: int) -> float:
        if then > self.due[i]:
            return -math.inf
        return self.best(then, (*states[:i], state, *states[i + 1 :]))


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 12), min_size=1, max_size=6).map(sorted),
    deadline=st.integers(1, 12),
)
def test_no_schedule_of_one_lane_beats_the_bound(arrivals: list[int], deadline: int):
    curves = Curves.build(CONFIDENCES, IS_RIGHT, TIMES, num_bins=2)
    arrived = np.array(arrivals, dtype=np.float64)

    work = fair_work_s(arrived, arrived + deadline, num_lanes=1)

    best = OneLane(arrivals, deadline).best(min(arrivals), (NEW,) * len(arrivals))
    assert curves.replayed(work).sum() >= best - 1e-9
    assert curves.bound(work).sum() >= curves.replayed(work).sum() - 1e-9


def best_static(
    arrivals: Sequence[int], deadline: int, num_lanes: int, choices: Sequence[Gain]
) -> float:
    """Best sum over all orders and depths, none interrupted."""
    best = 0.0
    for depths in product(choices, repeat=len(arrivals)):
        for order in permutations(range(len(arrivals))):
            if are_in_time(arrivals, deadline, num_lanes, [(i, depths[i].time_s) for i in order]):
                best = max(best, sum(depth.accuracy for depth in depths))
                break
    return best


def are_in_time(
    arrivals: Sequence[int], deadline: int, num_lanes: int, jobs: Sequence[tuple[int, float]]
) -> bool:
    free_at = [0.0] * num_lanes
    for i, time_s in jobs:
        lane = min(range(num_lanes), key=free_at.__getitem__)
        if time_s:
            free_at[lane] = max(free_at[lane], arrivals[i]) + time_s
        if time_s and free_at[lane] > arrivals[i] + deadline:
            return False
    return True


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 6), min_size=1, max_size=4).map(sorted),
    deadline=st.integers(1, 8),
    num_lanes=st.integers(1, 3),
)
def test_no_schedule_of_several_lanes_beats_the_bound(
    arrivals: list[int], deadline: int, num_lanes: int
):
    choices = [Gain(0.0, 0.0), Gain(2.0, 0.7), Gain(3.0, 0.9)]
    arrived = np.array(arrivals, dtype=np.float64)

    work = fair_work_s(arrived, arrived + deadline, num_lanes=num_lanes)

    best = best_static(arrivals, deadline, num_lanes, choices)
    assert ValueFunction.above(choices)(work).sum() >= best - 1e-9


def make_trace(*, rate_hz: float = 2.0, number: int = 50) -> Trace:
    spacing_s = np.random.default_rng(0).exponential(1 / rate_hz, number)
    return Trace(spacing_s.cumsum(), np.zeros(number, dtype=np.int64))


def bounds(*, times: ImageTimes = TIMES, deadline_s: float = 4.0, num_lanes: int = 2) -> TraceBound:
    curves = Curves.build(CONFIDENCES, IS_RIGHT, times, num_bins=2)
    return bound_on(make_trace(), curves, name="t", deadline_s=deadline_s, num_lanes=num_lanes)


LINES = pytest.mark.parametrize("line", ["bound", "replayed", "label_oracle", "exit_0_for_all"])


@LINES
def test_more_lanes_are_never_worse(line: str):
    few, many = bounds(num_lanes=1), bounds(num_lanes=3)

    assert getattr(many, line) > getattr(few, line)


@LINES
def test_a_longer_deadline_is_never_worse(line: str):
    short, long = bounds(deadline_s=2.0), bounds(deadline_s=8.0)

    assert getattr(long, line) > getattr(short, line)


@LINES
def test_what_the_front_end_takes_is_lost_to_the_lanes(line: str):
    free, dear = bounds(), bounds(times=ImageTimes((2.0, 1.0), (1.0, 1.0), arrival_s=1.0))

    assert getattr(dear, line) < getattr(free, line)


def test_with_time_for_everything_each_line_ends_at_what_its_knowledge_allows():
    found = bounds(num_lanes=1000)

    assert found.exit_0_for_all == pytest.approx(4 / 6)
    assert found.replayed == pytest.approx(5 / 6)  # unsure ones to exit 1, sure ones stay
    assert found.label_oracle == pytest.approx(5 / 6)
    assert found.bound >= found.replayed


def test_exit_0_for_all_is_its_accuracy_times_the_share_served():
    trace = Trace(np.zeros(8), np.zeros(8, dtype=np.int64))
    curves = Curves.build(CONFIDENCES, IS_RIGHT, TIMES, num_bins=2)

    found = bound_on(trace, curves, name="t", deadline_s=6.0 - GRACE_S, num_lanes=2)

    assert found.exit_0_for_all == pytest.approx(4 / 6 * (2 * 6 / 3) / 8)


def part_time(part: Part, core_s: float, batch_size: int) -> PartTime:
    return PartTime(
        stage_index=0,
        part=part,
        batch_size=batch_size,
        layout=Layout(lanes=2, threads=1),
        core_s=core_s,
    )


def test_each_part_counts_with_its_least_time_at_any_batch_size(tmp_path: Path):
    measured = (
        part_time(Part.TRUNK, 3e-3, 1),
        part_time(Part.TRUNK, 2e-3, 8),
        part_time(Part.CLASSIFIER, 5e-4, 1),
        part_time(Part.CLASSIFIER, 9e-4, 8),
    )
    StageTimes(model="m@1", processor="p", runtime="r", cores=2, measured=measured).write(
        tmp_path / "times.json"
    )

    times = StageTimes.read(tmp_path / "times.json").image_times(arrival_s=1e-4)

    assert times == ImageTimes((2e-3,), (5e-4,), 1e-4)
    assert math.isclose(times.straight_s(None, 0), 2.6e-3)
