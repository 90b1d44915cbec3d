import math
from collections.abc import Sequence
from typing import Any

import pytest

from service.engine.exit_policy import LonePlan, PlanCache, affordable_exit, plan_lone
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


def play(
    plan: LonePlan, confidences: Sequence[float] = (0.2, 0.4, 0.6, 0.8)
) -> tuple[str, ExitReason]:
    """Follow a plan to its end; return which stages ran and why it ended.

    `c` follows stages whose classifier runs, `?` those where the scheduler decides.
    """
    ran = ""
    for stage_index, classify in enumerate(plan.classify):
        ran += str(stage_index) + {True: "c", False: "", None: "?"}[classify]
        reason = plan.reason_to_leave(stage_index, confidences[stage_index] if classify else None)
        if reason is not None:
            return ran, reason
    raise AssertionError("the plan has no end")


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


def test_limits_without_an_affordable_exit_are_refused(exit_costs):
    with pytest.raises(ValueError, match="do not pay exit 0"):
        plan_lone(limits_of(budget_macs=1), exit_costs)


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
        pytest.param({"deadline_at": 99.0}, "0c1?2?3c", ExitReason.LAST_EXIT, id="deadline"),
        pytest.param(
            {"deadline_at": 99.0, "min_exit": 1}, "01c2?3c", ExitReason.LAST_EXIT, id="first answer"
        ),
        pytest.param(
            {"deadline_at": 99.0, "min_confidence": 0.5},
            "0c1c2c",
            ExitReason.CONFIDENT,
            id="it decides, so it looks",
        ),
    ],
)
def test_classifiers_run_where_their_answer_may_be_used(exit_costs, given, ran, why):
    assert play(plan_lone(limits_of(**given), exit_costs)) == (ran, why)


def test_confidence_is_never_met_by_nan(exit_costs):
    plan = plan_lone(limits_of(min_confidence=0.0), exit_costs)

    assert play(plan, (math.nan,) * 4) == ("0c1c2c3c", ExitReason.LAST_EXIT)


def test_equal_limits_are_worked_out_once(exit_costs):
    cache = PlanCache(exit_costs)

    first = cache.plan(limits_of(deadline_at=1.0))
    plans = [cache.plan(limits_of(min_confidence=number / 2000)) for number in range(2000)]

    assert cache.plan(limits_of(min_confidence=1999 / 2000)) is plans[-1]
    assert cache.plan(limits_of(deadline_at=2.0)) == first
