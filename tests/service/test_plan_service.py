"""What a budget would buy, and what is served."""

import pytest

from model_store.budget import Regime
from model_store.policies.choose import PolicyName
from service.commands import BoundBy, PlanCommand
from service.errors import BudgetTooSmall
from service.served import ServedModels


def plan(images: int, budget_macs: int | None) -> PlanCommand:
    return PlanCommand(images, budget_macs, PolicyName.GEOMETRIC, None)


async def test_a_budget_is_explained_without_running_anything(running):
    async with running() as world:
        done = world.plan.plan(plan(1000, 1000 * 300))

    assert world.stages_run == []
    assert done.budget.regime is Regime.CONSTRAINED
    assert done.budget.bound_by is BoundBy.BUDGET
    assert done.budget.windows == 4
    assert (done.minimum_macs, done.maximum_macs) == (110_000, 630_000)
    assert 0 < done.expected_macs <= 300_000
    assert done.budget.thresholds[-1] == 0


async def test_no_budget_buys_full_depth_and_binds_nothing(running):
    async with running() as world:
        done = world.plan.plan(plan(10, None))

    assert done.budget.regime is Regime.UNCONSTRAINED
    assert (done.budget.policy, done.budget.bound_by) == (None, BoundBy.NONE)
    assert done.budget.planned_macs == done.expected_macs == 6300


async def test_more_budget_promises_more(running):
    async with running() as world:
        little, much = (world.plan.plan(plan(10, b)) for b in (1200, 6000))

    assert little.expected_accuracy < much.expected_accuracy


async def test_too_little_names_the_least(running):
    async with running() as world:
        with pytest.raises(BudgetTooSmall) as refused:
            world.plan.plan(plan(10, 1099))

    assert refused.value.minimum_macs == 1100


async def test_a_model_tells_what_each_exit_costs_and_takes(running):
    async with running(stage_s=(0.1, 0.2, 0.3)) as world:
        served = ServedModels(world.models, world.engine, backend_name="fake", device="cpu")
        info = served.describe("scripted")

    assert [e.cumulative_macs for e in info.exits] == [110, 330, 660]
    assert [e.direct_macs for e in info.exits] == [110, 320, 630]
    assert info.exits[2].latency_s_by_batch_size[1] == pytest.approx(0.6)
    assert info.exits[0].holdout_accuracy < info.exits[2].holdout_accuracy
    assert served.versions() == (info.siblings,)
    assert (info.height, info.width, info.channels) == (8, 8, 3)
