import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.budget import BudgetInfeasible, BudgetPlan, Regime, plan_budget
from model_store.costs import ExitCosts
from model_store.counts import counts_within_budget, cumulative_counts
from model_store.ledger import Ledger
from model_store.ratio import exit_hazards, exit_shares, solve_log_ratio

MAX_IMAGES = 10_000

exit_costs = st.lists(
    st.tuples(st.integers(1, 10**8), st.integers(0, 10**7)), min_size=2, max_size=12
).map(lambda stages: ExitCosts(*map(tuple, zip(*stages, strict=True))))


@st.composite
def bounded_plans(draw: st.DrawFn) -> tuple[ExitCosts, BudgetPlan]:
    costs = draw(exit_costs)
    num_images = draw(st.integers(1, MAX_IMAGES))
    cumulative = costs.cumulative_macs
    budget = draw(st.integers(num_images * cumulative[0], num_images * cumulative[-1] - 1))
    return costs, plan_budget(costs, num_images, budget, every_classifier=True)


def priced(costs: ExitCosts, plan: BudgetPlan) -> float:
    return float(np.dot(plan.shares, costs.cumulative_macs)) * plan.num_images


@given(case=bounded_plans())
def test_shares_add_up_to_one_and_cost_the_budget(case: tuple[ExitCosts, BudgetPlan]):
    costs, plan = case

    assert plan.budget_macs is not None
    assert sum(plan.shares) == pytest.approx(1, rel=1e-14)
    assert priced(costs, plan) == pytest.approx(plan.budget_macs, rel=1e-9)


@given(case=bounded_plans())
def test_whole_images_never_cost_more_than_the_budget_nor_leave_a_step_unpaid(
    case: tuple[ExitCosts, BudgetPlan],
):
    costs, plan = case
    cost = sum(n * macs for n, macs in zip(plan.counts, costs.cumulative_macs, strict=True))
    next_steps = zip(plan.counts, costs.stage_macs[1:], strict=False)
    extensible = [step for count, step in next_steps if count]

    assert plan.budget_macs is not None
    assert sum(plan.counts) == plan.num_images
    assert min(plan.counts) >= 0
    assert cost == plan.planned_macs <= plan.budget_macs
    assert all(plan.budget_macs - cost < step for step in extensible)


@given(case=bounded_plans(), more_macs=st.integers(0, 10**10))
def test_a_larger_budget_never_plans_less(case: tuple[ExitCosts, BudgetPlan], more_macs: int):
    costs, plan = case
    assert plan.budget_macs is not None
    richer = plan_budget(
        costs, plan.num_images, plan.budget_macs + more_macs, every_classifier=True
    )

    reached = cumulative_counts(plan.shares, MAX_IMAGES)
    richer_reached = cumulative_counts(richer.shares, MAX_IMAGES)

    assert priced(costs, richer) >= priced(costs, plan) * (1 - 1e-12)
    assert all(later <= earlier for earlier, later in zip(reached, richer_reached, strict=True))


@given(case=bounded_plans())
def test_hazards_rise_to_one_and_release_the_shares(case: tuple[ExitCosts, BudgetPlan]):
    _, plan = case
    staying, released = 1.0, []
    for hazard in plan.hazards:
        released.append(staying * hazard)
        staying *= 1 - hazard

    assert list(plan.hazards) == sorted(plan.hazards)
    assert plan.hazards[-1] == 1
    # 1 - hazard loses digits where nearly all leave: absolute, not relative.
    assert released == pytest.approx(plan.shares, rel=0, abs=1e-12)


@given(
    exponent=st.integers(0, 300),
    cumulative=st.lists(st.integers(1, 10**6), min_size=3, max_size=9, unique=True).map(sorted),
)
def test_the_ratio_is_found_a_single_mac_away_from_either_end(exponent: int, cumulative: list[int]):
    num_images = 10**exponent
    low = solve_log_ratio(cumulative, num_images, num_images * cumulative[0] + 1)
    high = solve_log_ratio(cumulative, num_images, num_images * cumulative[-1] - 1)

    assert low <= high
    assert sum(exit_shares(low, len(cumulative))) == pytest.approx(1)
    assert sum(exit_shares(high, len(cumulative))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("budget_macs", "regime", "ratio"),
    [
        pytest.param(100, Regime.CONSTRAINED, 0, id="first exits and no more"),
        pytest.param(199, Regime.CONSTRAINED, 99 / 101, id="a MAC below the mean"),
        pytest.param(200, Regime.GENEROUS, 1, id="the mean of the exits"),
        pytest.param(201, Regime.GENEROUS, 101 / 99, id="a MAC above the mean"),
        pytest.param(300, Regime.UNCONSTRAINED, None, id="every last exit"),
        pytest.param(None, Regime.UNCONSTRAINED, None, id="no budget"),
    ],
)
def test_the_regime_is_told_by_integers(
    budget_macs: int | None, regime: Regime, ratio: float | None
):
    plan = plan_budget(ExitCosts.from_cumulative([10, 30]), 10, budget_macs)

    assert plan.regime is regime
    if ratio is None:
        assert (plan.ratio, plan.q, plan.hazards) == (None, None, (0, 1))
    else:
        assert plan.ratio == pytest.approx(ratio, rel=1e-12)
        assert plan.q == pytest.approx(1 - ratio, abs=1e-12)


def test_the_price_of_full_depth_counts_only_classifiers_that_run():
    costs = ExitCosts(trunk_macs=(10, 20), classifier_macs=(5, 5))

    direct = plan_budget(costs, 4, 4 * 35)
    every = plan_budget(costs, 4, 4 * 35, every_classifier=True)

    assert (direct.regime, direct.planned_macs) == (Regime.UNCONSTRAINED, 140)
    assert every.regime is Regime.GENEROUS
    assert plan_budget(costs, 4, None, every_classifier=True).planned_macs == 160


def test_a_network_of_one_exit_is_never_short_of_depth():
    plan = plan_budget(ExitCosts.from_cumulative([10]), 3, 30)

    assert (plan.regime, plan.shares, plan.counts) == (Regime.UNCONSTRAINED, (1.0,), (3,))


def test_no_image_is_no_batch():
    with pytest.raises(ValueError, match="needs images"):
        plan_budget(ExitCosts.from_cumulative([10, 30]), 0, 100)


def test_counts_that_round_over_the_budget_are_taken_back():
    costs = ExitCosts.from_cumulative([10, 25, 45])

    counts = counts_within_budget(costs, (0.0, 0.2, 0.8), 10, 300)

    assert sum(counts) == 10
    assert sum(n * macs for n, macs in zip(counts, (10, 25, 45), strict=True)) <= 300


def test_hazards_of_a_ratio_beyond_floats_stay_finite():
    assert exit_hazards(1e300, 4) == pytest.approx((0.0, 0.0, 1e-300, 1.0), rel=1e-9, abs=0)


def test_the_ledger_keeps_first_exits_apart_from_going_deeper():
    ledger = Ledger(budget_macs=55, first_exit_macs=10, num_images=4)

    ledger.charge_first_exits(3)

    assert not ledger.charge(16)
    assert ledger.charge(15)
    assert (ledger.left_macs, ledger.free_macs) == (10, 0)
    ledger.charge_first_exits(1)
    assert ledger.left_macs == 0


def test_the_ledger_charges_no_first_exit_twice():
    ledger = Ledger(budget_macs=55, first_exit_macs=10, num_images=4)
    ledger.charge_first_exits(3)

    with pytest.raises(ValueError, match="1 still to be charged"):
        ledger.charge_first_exits(2)


def test_the_ledger_does_not_open_below_its_first_exits():
    with pytest.raises(BudgetInfeasible):
        Ledger(budget_macs=39, first_exit_macs=10, num_images=4)
