import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.backends.base import StageKey
from service.engine.stage_costs import StageCosts


@pytest.fixture
def stage(model_key):
    return StageKey(model_key, 0)


def test_buckets_are_powers_of_two_and_the_largest_batch():
    assert StageCosts(max_batch=1).buckets == (1,)
    assert StageCosts(max_batch=8).buckets == (1, 2, 4, 8)
    assert StageCosts(max_batch=11).buckets == (1, 2, 4, 8, 11)


def test_batch_of_no_images_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        StageCosts(max_batch=0)


def test_what_is_unknown_takes_no_time(stage):
    assert StageCosts(max_batch=4).expected_s(stage, 4, 4) == 0.0


def test_sizes_between_buckets_are_interpolated(stage):
    costs = StageCosts(max_batch=8)
    costs.profile(stage, 4, trunk_s=4.0, classifier_s=1.0)
    costs.profile(stage, 8, trunk_s=6.0, classifier_s=2.0)

    assert costs.expected_s(stage, 4, 0) == pytest.approx(4.0)
    assert costs.expected_s(stage, 5, 0) == pytest.approx(4.5)
    assert costs.expected_s(stage, 6, 8) == pytest.approx(7.0)


def test_more_than_the_largest_batch_runs_in_several(stage):
    costs = StageCosts(max_batch=2)
    costs.profile(stage, 1, trunk_s=3.0, classifier_s=0.5)
    costs.profile(stage, 2, trunk_s=4.0, classifier_s=1.0)

    assert costs.expected_s(stage, 5, 5) == pytest.approx(4 + 4 + 3 + 1 + 1 + 0.5)


def test_only_buckets_are_profiled(stage):
    with pytest.raises(ValueError, match="not in tuple"):
        StageCosts(max_batch=8).profile(stage, 3, trunk_s=1.0, classifier_s=0.0)


def test_first_observation_of_an_unprofiled_stage_is_a_guess_for_every_size(stage):
    costs = StageCosts(max_batch=4)

    costs.observe(stage, 2, 2, 1.0)

    assert [costs.expected_s(stage, size, size) for size in (1, 2, 4)] == [1.0, 1.0, 2.0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 8), true_s=st.floats(0.1, 10.0))
def test_estimates_come_close_to_what_stages_really_take(model_key, size, true_s):
    stage = StageKey(model_key, 0)
    costs = StageCosts(max_batch=8)
    for bucket in costs.buckets:
        costs.profile(stage, bucket, trunk_s=1.0, classifier_s=0.25)

    for _ in range(400):
        costs.observe(stage, size, size, true_s)

    assert costs.expected_s(stage, size, size) == pytest.approx(true_s, rel=0.05)


def test_one_pause_hardly_moves_an_estimate(stage):
    costs = StageCosts(max_batch=1)
    costs.profile(stage, 1, trunk_s=1.0, classifier_s=0.0)

    costs.observe(stage, 1, 0, 1000.0)

    assert costs.expected_s(stage, 1, 0) == pytest.approx(1.1)


def test_classifier_learns_nothing_from_batches_it_did_not_look_at(stage):
    costs = StageCosts(max_batch=1)
    costs.profile(stage, 1, trunk_s=1.0, classifier_s=1.0)

    costs.observe(stage, 1, 0, 2.0)

    assert costs.expected_s(stage, 1, 1) - costs.expected_s(stage, 1, 0) == pytest.approx(1.0)


def test_straight_to_an_exit_runs_its_classifier_alone(make_costs, model_key):
    times = make_costs(trunk_s=1.0, classifier_s=0.25).times(model_key)

    assert times.straight_s(0, 2) == pytest.approx(3.25)
    assert times.straight_s(2, 2, 4) == pytest.approx(1.25)
    assert times.straight_s(3, 2) == 0.0
