import pytest

from service.backends.base import StageKey
from service.backends.fake import FakeBackend, FakeModel
from service.engine.request import ServedModel
from service.engine.stage_costs import StageCosts
from service.engine.warm_up import WarmUp


class SlowedClock:
    """Goes on by what stages are scripted to take."""

    def __init__(self) -> None:
        self.instant = 0.0

    def now(self) -> float:
        return self.instant


@pytest.fixture
def profile(model_key, exit_costs):
    def run(take_time, *, can_join=True, max_batch=4):
        clock = SlowedClock()

        def hook(call):
            clock.instant += take_time(call)

        backend = FakeBackend({model_key: FakeModel((0.5,) * 4)}, hooks=(hook,), can_join=can_join)
        costs = StageCosts(max_batch=max_batch)
        model = ServedModel(model_key, exit_costs, (1.0,) * 4, 8, (3, 2, 2))
        WarmUp(backend, costs, clock).profile(model)
        return costs, backend

    return run


def test_trunk_and_classifier_are_told_apart(profile, model_key):
    costs, _ = profile(
        lambda call: (call.stage.stage_index + 1) * len(call.images) + 0.5 * len(call.classify)
    )

    assert costs.expected_s(StageKey(model_key, 2), 3, 0) == pytest.approx(9.0)
    assert costs.expected_s(StageKey(model_key, 2), 3, 3) == pytest.approx(10.5)


def test_one_slow_run_and_a_cold_first_one_do_not_count(profile, model_key):
    costs, _ = profile(lambda call: 50.0 if call.call_index in {0, 2} else 1.0)

    assert costs.expected_s(StageKey(model_key, 0), 1, 1) == pytest.approx(1.0)


def test_joining_is_part_of_what_is_measured(profile):
    _, backend = profile(lambda call: 1.0)

    assert {(len(call.images), call.num_parts) for call in backend.calls} == {
        (1, 1),
        (2, 2),
        (4, 2),
    }


def test_backend_that_cannot_join_is_profiled_in_one_part(profile):
    _, backend = profile(lambda call: 1.0, can_join=False)

    assert {call.num_parts for call in backend.calls} == {1}
