"""What holds for every policy, whatever it is answered."""

import math
import random
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_store.budget import BudgetPlan, Regime, plan_budget
from model_store.costs import ExitCosts
from model_store.policies.base import LeaveReason, Step, WindowPolicy
from model_store.policies.choose import PolicyName, start_window
from model_store.thresholds import HoldoutConfidences

ADVERSARIAL = [math.nan, math.inf, -math.inf, -1.0, 2.0, 0.0, 0.5, 0.9, 1.0]


@st.composite
def windows(draw: st.DrawFn) -> tuple[ExitCosts, BudgetPlan, HoldoutConfidences]:
    stages = draw(
        st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 200)), min_size=1, max_size=8)
    )
    trunks, classifiers = zip(*stages, strict=True)
    costs = ExitCosts(trunks, classifiers)
    num_images = draw(st.integers(1, 40))
    least, most = (num_images * costs.cumulative_macs[k] for k in (0, -1))
    budget_macs = draw(st.integers(least, most))
    plan = plan_budget(costs, num_images, budget_macs, every_classifier=draw(st.booleans()))
    table = np.random.default_rng(draw(st.integers(0, 99))).random((50, costs.num_exits))
    return costs, plan, HoldoutConfidences(table)


class Adversary:
    """Answers with whatever it likes, lets stages fail, and may walk away."""

    def __init__(self, seed: int, *, failure_rate: float = 0.0, stop_rate: float = 0.0) -> None:
        self.random = random.Random(seed)  # noqa: S311 (a test's dice)
        self.failure_rate = failure_rate
        self.stop_rate = stop_rate
        self.begun_macs = 0
        self.is_finished = False

    def play(self, policy: WindowPolicy, costs: ExitCosts, budget_macs: int) -> None:
        steps = policy.advance({})
        while steps and self.random.random() >= self.stop_rate:
            self.begun_macs += sum(self.price(step, costs) for step in steps)
            assert policy.spent_macs == self.begun_macs <= budget_macs
            failed = {i for step in steps for i in step.images if self.fails()}
            steps = policy.advance(
                {
                    i: self.random.choice([*ADVERSARIAL, self.random.random()])
                    for step in steps
                    if step.classify
                    for i in step.images
                    if i not in failed
                },
                failed,
            )
        self.is_finished = not steps

    def fails(self) -> bool:
        return self.random.random() < self.failure_rate

    @staticmethod
    def price(step: Step, costs: ExitCosts) -> int:
        prices = costs.stage_macs if step.classify else costs.trunk_macs
        return len(step.images) * prices[step.stage_index]


policy_names = st.sampled_from(PolicyName)
seeds = st.integers(0, 2**32 - 1)


@given(window=windows(), policy_name=policy_names, seed=seeds, rates=st.sampled_from([0, 0.1, 0.5]))
def test_no_policy_overspends_whatever_is_answered_fails_or_is_given_up(
    window: tuple[ExitCosts, BudgetPlan, HoldoutConfidences],
    policy_name: PolicyName,
    seed: int,
    rates: float,
):
    costs, plan, holdout = window
    assert plan.budget_macs is not None
    policy = start_window(policy_name, plan, costs, holdout)
    adversary = Adversary(seed, failure_rate=rates, stop_rate=rates / 2)

    adversary.play(policy, costs, plan.budget_macs)

    assert policy.spent_macs <= plan.budget_macs
    assert sum(standing.spent_macs for standing in policy.exits()) == policy.spent_macs


@given(
    window=windows(), policy_name=policy_names, seed=seeds, failure_rate=st.sampled_from([0, 0.2])
)
def test_what_is_left_pays_no_next_stage_of_any_image(
    window: tuple[ExitCosts, BudgetPlan, HoldoutConfidences],
    policy_name: PolicyName,
    seed: int,
    failure_rate: float,
):
    costs, plan, holdout = window
    assert plan.budget_macs is not None
    policy = start_window(policy_name, plan, costs, holdout)

    Adversary(seed, failure_rate=failure_rate).play(policy, costs, plan.budget_macs)

    left_macs = plan.budget_macs - policy.spent_macs
    for standing in policy.exits():
        assert standing.reason is not None
        if standing.reason not in {LeaveReason.FAILED, LeaveReason.LAST_EXIT}:
            assert standing.exit_index is not None
            assert left_macs < costs.stage_macs[standing.exit_index + 1]


@given(window=windows(), seed=seeds)
def test_topk_leaves_exactly_the_planned_counts_and_spends_exactly_the_plan(
    window: tuple[ExitCosts, BudgetPlan, HoldoutConfidences], seed: int
):
    costs, plan, holdout = window
    assert plan.budget_macs is not None
    policy = start_window(PolicyName.TOPK, plan, costs, holdout)

    Adversary(seed).play(policy, costs, plan.budget_macs)

    exits = Counter(standing.exit_index for standing in policy.exits())
    assert [exits[k] for k in range(costs.num_exits)] == list(plan.counts)
    assert policy.spent_macs == plan.planned_macs


@given(window=windows(), policy_name=policy_names, seed=seeds)
def test_every_image_gets_its_first_exit_and_each_pays_for_the_one_it_has(
    window: tuple[ExitCosts, BudgetPlan, HoldoutConfidences], policy_name: PolicyName, seed: int
):
    costs, plan, holdout = window
    assert plan.budget_macs is not None
    policy = start_window(policy_name, plan, costs, holdout)

    Adversary(seed).play(policy, costs, plan.budget_macs)

    is_direct = plan.regime is Regime.UNCONSTRAINED and not plan.every_classifier
    prices = costs.direct_macs if is_direct else costs.cumulative_macs
    for standing in policy.exits():
        assert standing.exit_index is not None
        assert standing.spent_macs == prices[standing.exit_index]
