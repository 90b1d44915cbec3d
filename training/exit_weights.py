"""How much each exit's loss counts: alike, as listed, or as often as a budget lets it answer."""

from model_store.budget import plan_budget
from model_store.costs import ExitCosts
from training.models.msdnet.cost import classifier_costs, trunk_costs
from training.models.msdnet.shape import MSDNetShape
from training.recipe import BudgetWeights


def exit_weights(
    wanted: tuple[float, ...] | BudgetWeights | None, shape: MSDNetShape
) -> tuple[float, ...]:
    """Return one weight an exit, dimensionless.

    Those of a budget sum to the number of exits, as weights of 1 do, so that rates found for one
    fit the other. Source: arXiv 1703.09844, §4, "Loss functions", and eq. (2) and (3).

    Args:
        wanted: What the recipe says; None weighs all exits alike.
        shape: Of the network, which prices its exits.

    Raises:
        BudgetInfeasible: The budget does not pay the first exit.
    """
    num_exits = len(shape.exit_layers)
    if not isinstance(wanted, BudgetWeights):
        return wanted or (1.0,) * num_exits
    costs = ExitCosts(
        trunk_macs=tuple(cost.macs for cost in trunk_costs(shape)),
        classifier_macs=tuple(cost.macs for cost in classifier_costs(shape)),
    )
    # One image, so that the budget is that of an image; every classifier, as in training.
    plan = plan_budget(costs, 1, wanted.macs_per_image, every_classifier=True)
    return tuple(num_exits * share for share in plan.shares)
