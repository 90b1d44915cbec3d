import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.serving.clairvoyant import fair_work_s

Instants = NDArray[np.float64]

SPANS_S = st.sampled_from([0.5, 2.0, 6.0])  # one request after another to all at once
DEADLINE_S = 0.5


@st.composite
def arrivals(draw: st.DrawFn) -> Instants:
    """Up to eight arrivals, some of them at the same instant."""
    span_s = draw(SPANS_S)
    places = draw(st.lists(st.integers(0, 20), min_size=1, max_size=8))
    return np.sort(np.array(places) * span_s / 20)


def critical_intervals(arrived_s: Instants, due_s: Instants, num_lanes: int) -> Instants:
    """The same by definition: the tightest interval first, then the next among who is left."""
    work_s: dict[int, float] = {}
    waiting, taken = set(range(len(arrived_s))), list[tuple[float, float]]()

    def free_s(start: float, end: float) -> float:
        return end - start - sum(max(0.0, min(end, b) - max(start, a)) for a, b in taken)

    while waiting:
        candidates = [
            (free_s(start, end) / len(inside), start, end, inside)
            for start in {arrived_s[i] for i in waiting}
            for end in {due_s[i] for i in waiting}
            if (inside := [i for i in waiting if start <= arrived_s[i] and due_s[i] <= end])
        ]
        share_s, start, end, inside = min(candidates, key=lambda candidate: candidate[0])
        work_s.update((i, num_lanes * share_s) for i in inside)
        waiting -= set(inside)
        taken = merged([*taken, (start, end)])
    return np.array([work_s[i] for i in range(len(arrived_s))])


def merged(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    done: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if done and start <= done[-1][1]:
            done[-1] = (done[-1][0], max(done[-1][1], end))
        else:
            done.append((start, end))
    return done


@settings(deadline=None)
@given(arrived_s=arrivals(), num_lanes=st.integers(1, 3))
def test_it_is_what_the_critical_intervals_leave(arrived_s: Instants, num_lanes: int):
    due_s = arrived_s + DEADLINE_S

    work_s = fair_work_s(arrived_s, due_s, num_lanes=num_lanes)

    assert work_s == pytest.approx(critical_intervals(arrived_s, due_s, num_lanes), abs=1e-9)


@settings(deadline=None)
@given(arrived_s=arrivals(), slack_s=st.lists(st.floats(0, 2), min_size=8, max_size=8))
def test_deadlines_may_differ_as_long_as_they_keep_the_order(
    arrived_s: Instants, slack_s: list[float]
):
    due_s = np.maximum.accumulate(arrived_s + slack_s[: len(arrived_s)])

    work_s = fair_work_s(arrived_s, due_s, num_lanes=1)

    assert work_s == pytest.approx(critical_intervals(arrived_s, due_s, 1), abs=1e-9)


@settings(deadline=None)
@given(arrived_s=arrivals(), num_lanes=st.integers(1, 3))
def test_no_interval_holds_more_work_than_its_lanes_can_do(arrived_s: Instants, num_lanes: int):
    due_s = arrived_s + DEADLINE_S

    work_s = fair_work_s(arrived_s, due_s, num_lanes=num_lanes)

    for start in arrived_s:
        for end in due_s:
            inside = (start <= arrived_s) & (due_s <= end)
            assert work_s[inside].sum() <= num_lanes * max(0.0, end - start) + 1e-9


def test_one_request_has_all_lanes_until_its_deadline():
    work_s = fair_work_s(np.array([1.0]), np.array([1.25]), num_lanes=2)

    assert work_s == pytest.approx([0.5])


def test_requests_of_one_instant_share_evenly():
    work_s = fair_work_s(np.zeros(4), np.full(4, 0.2), num_lanes=2)

    assert work_s == pytest.approx([0.1] * 4)


def test_under_steady_overload_each_has_the_lanes_for_one_gap_and_a_share_of_the_last_deadline():
    gap_s, number, deadline_s = 0.01, 1000, 0.1
    arrived_s = gap_s * np.arange(number, dtype=np.float64)

    work_s = fair_work_s(arrived_s, arrived_s + deadline_s, num_lanes=2)

    share_s = 2 * (gap_s * (number - 1) + deadline_s) / number
    assert work_s == pytest.approx(np.full(number, share_s))


def test_who_comes_after_a_gap_starts_afresh():
    work_s = fair_work_s(np.array([0.0, 0.0, 9.0]), np.array([1.0, 1.0, 10.0]), num_lanes=1)

    assert work_s == pytest.approx([0.5, 0.5, 1.0])


def test_no_arrival_means_no_work():
    assert len(fair_work_s(np.empty(0), np.empty(0), num_lanes=2)) == 0


def test_deadlines_out_of_order_are_refused():
    with pytest.raises(ValueError, match="order of arrivals"):
        fair_work_s(np.array([0.0, 1.0]), np.array([3.0, 2.0]), num_lanes=1)
