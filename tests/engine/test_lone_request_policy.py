import math
from collections.abc import Sequence
from typing import Any

import pytest

from model_store.policies.base import Step
from service.engine.exit_policy import LoneRequestPolicy, affordable_exit
from service.engine.request import ExitLimits, ExitReason


def limits_of(**given: Any) -> ExitLimits:
    facts: dict[str, Any] = {
        "deadline_at": None,
        "budget_macs": None,
        "min_confidence": None,
        "min_exit": 0,
        "max_exit": 3,
        "every_classifier": False,
    }
    return ExitLimits(**{**facts, **given})


@pytest.fixture
def make_policy(exit_costs, make_costs, model_key):
    """Where every stage takes a second, and a classifier a quarter more."""

    def make(**given):
        times = make_costs(classifier_s=0.25).times(model_key)
        return LoneRequestPolicy(limits_of(**given), exit_costs, times, margin_s=0.5)

    return make


def play(
    policy: LoneRequestPolicy,
    confidences: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    *,
    stage_s: float = 1.25,
) -> str:
    """Run a policy to its end; return which stages ran, `c` for those with a classifier."""
    now, ran = 0.0, ""
    steps = policy.start(now)
    while steps:
        (step,) = steps
        ran += f"{step.stage_index}c" if step.classify else f"{step.stage_index}"
        said = {0: confidences[step.stage_index]} if step.classify else {}
        now += stage_s
        steps = policy.advance(said, (), now)
    return ran


def reason(policy: LoneRequestPolicy) -> ExitReason:
    return policy.reasons()[0]


# D_k = 110, 320, 630, 1040 and C_k = 110, 330, 660, 1100 of the test network.
@pytest.mark.parametrize(
    ("given", "exit_index"),
    [
        pytest.param({}, 3, id="no limit: the last"),
        pytest.param({"max_exit": 1}, 1, id="max_exit"),
        pytest.param({"budget_macs": 1040}, 3, id="exactly D_K"),
        pytest.param({"budget_macs": 1039}, 2, id="one less than D_K"),
        pytest.param({"budget_macs": 1040, "min_confidence": 0.5}, 2, id="C_k with confidence"),
        pytest.param({"budget_macs": 1040, "deadline_at": 9.0}, 2, id="C_k with a deadline"),
        pytest.param({"budget_macs": 1040, "every_classifier": True}, 2, id="C_k with detail"),
        pytest.param({"budget_macs": 1100, "every_classifier": True}, 3, id="exactly C_K"),
        pytest.param({"budget_macs": 109}, None, id="below exit 0"),
        pytest.param({"budget_macs": 629, "min_exit": 2}, None, id="below exit min_exit"),
        pytest.param({"budget_macs": 630, "min_exit": 2}, 2, id="exactly exit min_exit"),
    ],
)
def test_affordable_exit_is_the_deepest_whose_price_is_paid(given, exit_index, exit_costs):
    assert affordable_exit(limits_of(**given), exit_costs) == exit_index


def test_policy_without_an_affordable_exit_is_refused(make_policy):
    with pytest.raises(ValueError, match="do not pay exit 0"):
        make_policy(budget_macs=1)


@pytest.mark.parametrize(
    ("given", "ran", "why"),
    [
        pytest.param({}, "0123c", ExitReason.LAST_EXIT, id="straight to the last"),
        pytest.param({"max_exit": 2}, "012c", ExitReason.MAX_EXIT, id="straight to max_exit"),
        pytest.param({"max_exit": 3, "min_exit": 3}, "0123c", ExitReason.LAST_EXIT, id="min_exit"),
        pytest.param({"budget_macs": 700}, "012c", ExitReason.BUDGET, id="straight to the budget"),
        pytest.param(
            {"budget_macs": 700, "max_exit": 2}, "012c", ExitReason.MAX_EXIT, id="both at once"
        ),
        pytest.param(
            {"every_classifier": True}, "0c1c2c3c", ExitReason.LAST_EXIT, id="every classifier"
        ),
        pytest.param({"min_confidence": 0.5}, "0c1c2c", ExitReason.CONFIDENT, id="confident"),
        pytest.param(
            {"min_confidence": 0.2, "min_exit": 1}, "01c", ExitReason.CONFIDENT, id="not too early"
        ),
        pytest.param(
            {"min_confidence": 0.6, "max_exit": 2}, "0c1c2c", ExitReason.CONFIDENT, id="it wins"
        ),
        pytest.param(
            {"min_confidence": 0.8}, "0c1c2c3c", ExitReason.LAST_EXIT, id="not at the last exit"
        ),
        pytest.param(
            {"min_confidence": 0.9, "budget_macs": 700},
            "0c1c2c",
            ExitReason.BUDGET,
            id="budget before confidence",
        ),
        pytest.param({"deadline_at": 99.0}, "0c123c", ExitReason.LAST_EXIT, id="much time"),
        pytest.param(
            {"deadline_at": 99.0, "min_exit": 1}, "01c23c", ExitReason.LAST_EXIT, id="first answer"
        ),
        pytest.param({"deadline_at": 5.6}, "0c1c2c3c", ExitReason.LAST_EXIT, id="just enough"),
        pytest.param({"deadline_at": 4.3}, "0c1c2c", ExitReason.DEADLINE, id="time for three"),
        pytest.param({"deadline_at": 1.9}, "0c", ExitReason.DEADLINE, id="time for one"),
        pytest.param(
            {"deadline_at": 1.0, "min_exit": 1}, "01c", ExitReason.DEADLINE, id="owed all the same"
        ),
    ],
)
def test_classifiers_run_where_their_answer_may_be_used(make_policy, given, ran, why):
    policy = make_policy(**given)

    assert play(policy) == ran
    assert reason(policy) is why


def test_way_that_went_slowly_is_expected_to_stay_slow(make_policy):
    policy = make_policy(deadline_at=28.0)

    # Four times slower than expected: eight times what is left does not fit, twice it would.
    assert play(policy, stage_s=5.0) == "0c1c2c3c"


def test_nothing_is_decided_before_the_end(make_policy):
    policy = make_policy()

    assert policy.start(0.0) == (Step(0, (0,), classify=False),)
    assert policy.reasons() == {}


def test_failed_stage_ends_it(make_policy):
    policy = make_policy(every_classifier=True)
    policy.start(0.0)
    policy.advance({0: 0.2}, (), 1.0)

    assert policy.advance({}, (0,), 2.0) == ()
    assert reason(policy) is ExitReason.FAILED


def test_unprofiled_stages_are_expected_to_fit(exit_costs, make_costs, model_key):
    times = make_costs(trunk_s=0.0).times(model_key)
    policy = LoneRequestPolicy(limits_of(deadline_at=5.0), exit_costs, times, margin_s=0.0)

    assert play(policy, stage_s=1.0) == "0c123c"


def test_confidence_is_never_met_by_nan(make_policy):
    policy = make_policy(min_confidence=0.0)

    assert play(policy, (math.nan,) * 4) == "0c1c2c3c"
