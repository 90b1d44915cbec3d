"""A deadline as a budget: what can be executed by then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.budget import plan_budget
from model_store.costs import ExitCosts
from service.backends.base import ModelKey, StageKey
from service.batch_deadline import affordable_macs
from service.engine.stage_costs import ModelTimes, StageCosts

COSTS = ExitCosts(trunk_macs=(100, 200, 300), classifier_macs=(10, 20, 30))
STAGE_S = (0.01, 0.03, 0.02)  # an image, in full batches


def times() -> ModelTimes:
    costs, model = StageCosts(max_batch=4), ModelKey("m", "1")
    for index, seconds in enumerate(STAGE_S):
        for bucket in costs.buckets:
            costs.profile(
                StageKey(model, index), bucket, trunk_s=bucket * seconds, classifier_s=0.0
            )
    return costs.times(model)


@given(available_s=st.floats(0, 2), num_images=st.integers(1, 40))
def test_the_plan_of_what_is_affordable_takes_no_longer_than_there_is(available_s, num_images):
    macs = affordable_macs(COSTS, times(), num_images=num_images, available_s=available_s)

    if macs is None:
        assert num_images * STAGE_S[0] > 0.9 * available_s
        return
    shares = plan_budget(COSTS, num_images, macs, every_classifier=True).shares
    reached = (1.0, 1 - shares[0], shares[2])
    planned_s = num_images * sum(r * s for r, s in zip(reached, STAGE_S, strict=True))
    assert planned_s <= 0.9 * available_s + 1e-9 or macs == num_images * 110


def test_enough_time_affords_everything():
    assert affordable_macs(COSTS, times(), num_images=10, available_s=10.0) == 6600


def test_more_time_affords_more():
    little, more, most = (
        affordable_macs(COSTS, times(), num_images=10, available_s=seconds) or 0
        for seconds in (0.2, 0.4, 0.6)
    )

    assert 0 < little < more < most


def test_not_even_exit_0_fits():
    assert affordable_macs(COSTS, times(), num_images=10, available_s=0.1) is None


def test_just_the_first_exits_fit():
    macs = affordable_macs(COSTS, times(), num_images=10, available_s=0.1 / 0.9 + 1e-9)

    assert macs == pytest.approx(1100, abs=20)
