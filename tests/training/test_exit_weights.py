"""How much each exit's loss counts."""

import pytest

from model_store.budget import BudgetInfeasible
from training.exit_weights import exit_weights
from training.models.msdnet.cost import lazy_costs
from training.recipe import BudgetWeights, load_recipe

SHAPE = load_recipe("cifar10_7exits_cpu").network.shape(10)


def test_all_exits_count_alike_where_nothing_is_said():
    assert exit_weights(None, SHAPE) == (1.0,) * 7


def test_listed_weights_are_taken_as_they_are():
    assert exit_weights((7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0), SHAPE)[0] == 7.0


@pytest.mark.parametrize("macs", [15_000_000, 30_000_000, 60_000_000])
def test_a_budget_weighs_exits_by_how_often_they_answer_under_it(macs):
    weights = exit_weights(BudgetWeights(macs_per_image=macs), SHAPE)

    mean_macs = sum(w / 7 * cost.macs for w, cost in zip(weights, lazy_costs(SHAPE), strict=True))
    assert sum(weights) == pytest.approx(7)
    assert mean_macs == pytest.approx(macs)


def test_a_budget_below_the_first_exit_weighs_nothing():
    with pytest.raises(BudgetInfeasible):
        exit_weights(BudgetWeights(macs_per_image=1), SHAPE)
