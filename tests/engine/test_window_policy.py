import pytest

from model_store.policies.full_depth import start_full_depth
from model_store.policies.geometric import start_geometric
from model_store.policies.topk import start_topk
from service.engine.request import ExitReason
from service.engine.window_policy import WindowCohortPolicy


@pytest.fixture
def wrap(make_costs, model_key):
    def make(window, *, deadline_at=None):
        times = make_costs(trunk_s=1.0, classifier_s=0.5).times(model_key)
        return WindowCohortPolicy(window, times, deadline_at=deadline_at, margin_s=0.5)

    return make


def play(
    policy: WindowCohortPolicy, *, stage_s: float = 1.5, confidence: float = 0.5
) -> list[tuple[int, int]]:
    """Run a policy to its end; return how many images ran each stage."""
    now = 0.0
    ran: list[tuple[int, int]] = []
    steps = policy.start(now)
    while steps:
        ran.extend((step.stage_index, len(step.images)) for step in steps)
        now += stage_s * len(steps)
        said = {
            image: confidence + image / 100
            for step in steps
            for image in step.images
            if step.classify
        }
        steps = policy.advance(said, (), now)
    return ran


def test_budget_policy_decides_while_there_is_time(wrap, exit_costs):
    window = start_topk(exit_costs, 10_000, (1, 1, 1, 1))
    policy = wrap(window, deadline_at=100.0)

    ran = play(policy)

    assert ran[:4] == [(0, 4), (1, 3), (2, 2), (3, 1)]
    assert policy.reasons()[3] is ExitReason.LAST_EXIT


def test_reasons_are_those_of_the_budget_policy(wrap, exit_costs):
    window = start_geometric(exit_costs, 3, 110 * 3 + 220, (0.52, 0.0, 0.0, 0.0))
    policy = wrap(window)

    play(policy)

    # The confident one leaves; of the others the budget takes one on, by what it is worth.
    assert set(policy.reasons().values()) == {ExitReason.CONFIDENT, ExitReason.BUDGET}


def test_everybody_stands_where_he_stands_when_the_next_step_does_not_fit(wrap, exit_costs):
    window = start_full_depth(exit_costs, 4, every_classifier=True)
    policy = wrap(window, deadline_at=4.9)

    assert play(policy) == [(0, 4), (1, 4)]
    assert set(policy.reasons().values()) == {ExitReason.DEADLINE}


def test_reason_known_before_the_deadline_stays(wrap, exit_costs):
    window = start_geometric(exit_costs, 2, 2000, (0.505, 0.9, 0.9, 0.0))
    policy = wrap(window, deadline_at=3.4)

    play(policy)

    assert policy.reasons() == {0: ExitReason.DEADLINE, 1: ExitReason.CONFIDENT}


def test_first_exit_is_owed_however_late_it_is(wrap, exit_costs):
    policy = wrap(start_full_depth(exit_costs, 4, every_classifier=True), deadline_at=0.0)

    assert play(policy) == [(0, 4)]


def test_blind_steps_are_expected_to_take_their_trunk_alone(wrap, exit_costs):
    policy = wrap(start_full_depth(exit_costs, 4, every_classifier=False), deadline_at=5.0)

    assert play(policy, stage_s=1.0) == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_step_is_shared_by_the_lanes(make_costs, model_key, exit_costs):
    times = make_costs(max_batch=2).times(model_key)

    def steps_s(num_lanes: int) -> float:
        window = start_full_depth(exit_costs, 4, every_classifier=True)
        policy = WindowCohortPolicy(
            window, times, deadline_at=2.5, margin_s=0.0, num_lanes=num_lanes
        )
        return sum(1 for _ in play(policy, stage_s=0.0))

    # Two batches of a second one after another fit 2.5 seconds, and so do they side by side.
    assert steps_s(1) == steps_s(2) == 4
