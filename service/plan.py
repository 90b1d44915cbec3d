"""What a budget would buy: the same arithmetic as a batch's, and no image."""

from dataclasses import dataclass

from model_store.budget import BudgetInfeasible, BudgetPlan, Regime, plan_budget
from model_store.policies.choose import PolicyName, thresholds_of
from service.commands import BoundBy, BudgetOutlook, PlanCommand, PlanDone
from service.errors import BudgetTooSmall
from service.models import Model, Models


@dataclass(frozen=True, slots=True)
class PlanService:
    """Explains budgets without spending them."""

    models: Models
    batch_window: int  # most images of a window

    def plan(self, command: PlanCommand) -> PlanDone:
        """Return what a budget would buy for a number of images.

        Raises:
            ModelNotFound: The model is not served.
            BudgetTooSmall: The budget does not pay the first exit of every image.
        """
        model = self.models.find(command.model)
        costs = model.served.costs
        try:
            plan = plan_budget(costs, command.images, command.budget_macs)
        except BudgetInfeasible as refused:
            raise BudgetTooSmall(minimum_macs=refused.minimum_macs) from refused
        expected = model.expectation.expect(plan, command.policy)
        return PlanDone(
            model=model.key,
            images=command.images,
            budget=outlook(
                model,
                plan,
                command.policy,
                requested_macs=command.budget_macs,
                bound_by=bound_by_budget(plan),
                windows=-(-command.images // self.batch_window),
            ),
            expected_accuracy=expected.accuracy,
            expected_macs=expected.macs,
            minimum_macs=command.images * costs.cumulative_macs[0],
            maximum_macs=command.images * costs.direct_macs[-1],
        )


def outlook(
    model: Model,
    plan: BudgetPlan,
    policy: PolicyName,
    *,
    requested_macs: int | None,
    bound_by: BoundBy,
    windows: int,
) -> BudgetOutlook:
    """Return a plan as it is reported."""
    return BudgetOutlook(
        policy=None if bound_by is BoundBy.NONE else policy,
        regime=plan.regime,
        bound_by=bound_by,
        requested_macs=requested_macs,
        planned_macs=plan.planned_macs,
        q=plan.q,
        ratio=plan.ratio,
        exit_shares=plan.shares,
        thresholds=thresholds_of(policy, plan, model.holdout),
        windows=windows,
    )


def bound_by_budget(plan: BudgetPlan) -> BoundBy:
    """Return what bounds a batch that nothing but its budget could bound."""
    return BoundBy.NONE if plan.regime is Regime.UNCONSTRAINED else BoundBy.BUDGET
