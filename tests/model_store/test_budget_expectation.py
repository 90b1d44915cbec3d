import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.budget import plan_budget
from model_store.costs import ExitCosts
from model_store.expectation import CrossFit
from model_store.policies.choose import PolicyName

COSTS = ExitCosts(trunk_macs=(8, 12, 17), classifier_macs=(2, 3, 3))
NUM_HOLDOUT = 3000
both_policies = pytest.mark.parametrize(
    "policy_name", list(PolicyName), ids=lambda name: name.value
)


def holdout() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Later exits are right more often, and confidence is the chance of being right."""
    generator = np.random.default_rng(7)
    ease = generator.normal(1, 1, size=(NUM_HOLDOUT, 1))
    confidences = 1 / (1 + np.exp(-ease - generator.normal([0, 0.5, 1], 0.3, (NUM_HOLDOUT, 3))))
    return confidences, generator.random((NUM_HOLDOUT, 3)) < confidences


@pytest.fixture(scope="module")
def cross_fit() -> CrossFit:
    return CrossFit(COSTS, *holdout())


@both_policies
def test_first_exits_and_no_more_are_as_right_as_the_first_exit(
    cross_fit: CrossFit, policy_name: PolicyName
):
    expected = cross_fit.expect(plan_budget(COSTS, 64, 640), policy_name)

    _, correct = holdout()
    assert expected.accuracy == pytest.approx(correct[:, 0].mean())
    assert expected.macs == 640


@both_policies
@pytest.mark.parametrize(
    ("every_classifier", "macs"),
    [pytest.param(False, 64 * 40, id="direct"), pytest.param(True, 64 * 45, id="every classifier")],
)
def test_no_budget_is_as_right_as_the_last_exit(
    cross_fit: CrossFit, policy_name: PolicyName, every_classifier: bool, macs: int
):
    plan = plan_budget(COSTS, 64, None, every_classifier=every_classifier)

    expected = cross_fit.expect(plan, policy_name)

    _, correct = holdout()
    assert expected.accuracy == pytest.approx(correct[:, -1].mean())
    assert expected.macs == macs


@both_policies
def test_a_larger_budget_promises_more_and_keeps_to_itself(
    cross_fit: CrossFit, policy_name: PolicyName
):
    budgets = [64 * macs for macs in (12, 20, 28, 36)]

    expected = [cross_fit.expect(plan_budget(COSTS, 64, budget), policy_name) for budget in budgets]

    accuracies = [expectation.accuracy for expectation in expected]
    assert accuracies == sorted(accuracies)
    for expectation, budget in zip(expected, budgets, strict=True):
        # The sampling error of 3000 images, and whole images of 64.
        assert 0.96 * budget <= expectation.macs <= budget


def test_a_single_image_takes_the_deepest_exit_it_can_pay(cross_fit: CrossFit):
    expected = cross_fit.expect(plan_budget(COSTS, 1, 39), PolicyName.TOPK)

    _, correct = holdout()
    assert expected.macs == 25
    assert expected.accuracy == pytest.approx(correct[:, 1].mean())


def test_early_exits_by_confidence_beat_the_same_shares_by_chance(cross_fit: CrossFit):
    plan = plan_budget(COSTS, 64, 64 * 20)

    expected = cross_fit.expect(plan, PolicyName.GEOMETRIC)

    _, correct = holdout()
    assert expected.accuracy > float(np.dot(plan.shares, correct.mean(axis=0))) + 0.005


@pytest.mark.parametrize(
    ("confidences", "correct"),
    [
        pytest.param((10, 3), (9, 3), id="other images"),
        pytest.param((10, 2), (10, 2), id="other exits"),
        pytest.param((4, 3), (4, 3), id="fewer than folds"),
    ],
)
def test_tables_that_do_not_fit_are_refused(confidences: tuple[int, int], correct: tuple[int, int]):
    with pytest.raises(ValueError, match=r"exits|folds"):
        CrossFit(COSTS, np.zeros(confidences), np.zeros(correct, dtype=np.bool_))
