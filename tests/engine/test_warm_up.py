import threading

import pytest

from model_store.costs import ExitCosts
from service.backends.base import ModelKey, StageKey
from service.backends.fake import FakeBackend, FakeModel
from service.engine.clock import MonotonicClock
from service.engine.request import ServedModel
from service.engine.stage_costs import StageCosts
from service.engine.warm_up import WarmUp
from service.errors import BackendFailed

KEY = ModelKey("fake", "1")
COSTS = ExitCosts(trunk_macs=(100, 200, 300, 400), classifier_macs=(10, 20, 30, 40))
MODEL = ServedModel(KEY, COSTS, (1.0,) * 4, 8, (3, 2, 2))


class SlowedClock:
    """Goes on by what stages are scripted to take."""

    def __init__(self) -> None:
        self.instant = 0.0

    def now(self) -> float:
        return self.instant


@pytest.fixture
def profile():
    def run(take_time, *, can_join=True, max_batch=4):
        clock = SlowedClock()

        def hook(call):
            clock.instant += take_time(call)

        backend = FakeBackend({KEY: FakeModel((0.5,) * 4)}, hooks=(hook,), can_join=can_join)
        costs = StageCosts(max_batch=max_batch)
        macs = WarmUp(backend, costs, clock).profile(MODEL)
        return costs, backend, macs

    return run


def test_trunk_and_classifier_are_told_apart(profile):
    costs, _, _ = profile(
        lambda call: (call.stage.stage_index + 1) * len(call.images) + 0.5 * len(call.classify)
    )

    assert costs.expected_s(StageKey(KEY, 2), 3, 0) == pytest.approx(9.0)
    assert costs.expected_s(StageKey(KEY, 2), 3, 3) == pytest.approx(10.5)


def test_one_slow_run_and_a_cold_first_one_do_not_count(profile):
    costs, _, _ = profile(lambda call: 0.05 if call.call_index in {0, 5} else 0.001)

    assert costs.expected_s(StageKey(KEY, 0), 1, 1) == pytest.approx(0.001)


def test_slow_stage_is_timed_but_once_with_and_without_its_classifier(profile):
    _, backend, _ = profile(lambda call: 1.0, max_batch=1)

    assert [(call.stage.stage_index, len(call.classify)) for call in backend.calls] == [
        (stage_index, classified) for stage_index in range(4) for classified in (1, 0, 1)
    ]


def test_joining_arrivals_and_survivors_is_part_of_what_is_measured(profile):
    _, backend, _ = profile(lambda call: 1.0)

    found = {(call.stage.stage_index, len(call.images), call.num_parts) for call in backend.calls}
    assert {(0, 1, 1), (0, 4, 4), (1, 1, 1), (1, 2, 2), (3, 4, 2)} <= found


def test_backend_that_cannot_join_is_profiled_in_one_part(profile):
    _, backend, _ = profile(lambda call: 1.0, can_join=False)

    assert {call.num_parts for call in backend.calls} == {1}


def test_every_mac_that_was_executed_is_counted(profile):
    _, backend, macs = profile(lambda call: 0.004)

    executed = sum(
        len(call.images) * COSTS.trunk_macs[call.stage.stage_index]
        + len(call.classify) * COSTS.classifier_macs[call.stage.stage_index]
        for call in backend.calls
    )
    assert macs == executed


def test_all_lanes_run_the_same_stage_at_once():
    # Each call waits for one of another thread, so that a single lane would break the barrier.
    company = threading.Barrier(3, timeout=5.0)
    threads = set()

    def meet(call):
        threads.add(threading.get_ident())
        if call.call_index < 3:
            company.wait()

    backend = FakeBackend({KEY: FakeModel((0.5,) * 4)}, hooks=(meet,))
    costs = StageCosts(max_batch=2)

    WarmUp(backend, costs, MonotonicClock(), num_lanes=3).profile(MODEL)

    assert len(threads) == 3
    assert {call.stage.stage_index for call in list(backend.calls)[:3]} == {0}
    assert all(costs.expected_s(StageKey(KEY, k), 2, 2) > 0 for k in range(4))


def test_failing_stage_ends_the_warm_up_in_every_lane():
    def fail(call):
        raise BackendFailed("out of memory")

    backend = FakeBackend({KEY: FakeModel((0.5,) * 4)}, hooks=(fail,))
    warm_up = WarmUp(backend, StageCosts(max_batch=2), MonotonicClock(), num_lanes=2)

    with pytest.raises(BackendFailed, match="out of memory"):
        warm_up.profile(MODEL)
