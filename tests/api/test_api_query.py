from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.policies.choose import PolicyName
from service.api.parameters import BatchQuery, ClassifyQuery, NoQuery, PlanQuery
from service.api.query import parse_query
from service.errors import InvalidParameter


def test_what_is_left_out_has_the_documented_default():
    query = parse_query([], ClassifyQuery)

    assert query == ClassifyQuery()
    assert (query.macs, query.deadline_ms, query.min_exit, query.max_exit) == (None, None, 0, None)
    assert (query.top_k, query.detail, query.model) == (5, None, None)
    assert BatchQuery().top_k == 1
    assert BatchQuery().policy is PolicyName.GEOMETRIC


def test_parameters_are_read_in_their_units():
    sent = {
        "deadline_ms": "12.5",
        "budget_macs": "1000",
        "min_confidence": "1e-1",
        "min_exit": "1",
        "max_exit": "3",
        "top_k": "100000000000000000000",
        "detail": "exits",
        "model": "net@2",
    }

    query = parse_query(sent.items(), ClassifyQuery)

    assert query.deadline_ms == 12.5
    assert query.macs == 1000
    assert query.min_confidence == 0.1
    assert (query.min_exit, query.max_exit, query.top_k) == (1, 3, 10**20)
    assert (query.detail, query.model) == ("exits", "net@2")


@pytest.mark.parametrize(("flops", "macs"), [("0", 0), ("7", 3), ("8", 4)])
def test_flops_are_halved_rounding_down(flops: str, macs: int):
    assert parse_query([("budget_flops", flops)], BatchQuery).macs == macs


@pytest.mark.parametrize(
    ("sent", "nearest"),
    [
        ("deadlin_ms", "deadline_ms"),
        ("budget_mac", "budget_macs"),
        ("confidence", "min_confidence"),
        ("topk", "top_k"),
        ("Model", "model"),
        ("DEADLINE_MS", "deadline_ms"),
    ],
)
def test_a_typo_is_told_the_nearest_parameter_there_is(sent: str, nearest: str):
    with pytest.raises(InvalidParameter, match=nearest) as raised:
        parse_query([(sent, "30")], ClassifyQuery)

    assert (raised.value.parameter, raised.value.nearest) == (sent, nearest)


def test_a_route_without_parameters_knows_no_nearest():
    with pytest.raises(InvalidParameter, match="none is known") as raised:
        parse_query([("x", "1")], NoQuery)

    assert raised.value.nearest is None


def test_a_very_long_name_is_quoted_only_in_part():
    with pytest.raises(InvalidParameter) as raised:
        parse_query([("x" * 100_000, "1")], ClassifyQuery)

    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "query",
    [
        *(
            "deadline_ms=-1",
            "deadline_ms=nan",
            "deadline_ms=inf",
            "deadline_ms=",
            "deadline_ms=soon",
        ),
        *("deadline_ms=1e400", "deadline_ms=1_000", "deadline_ms= 1", "deadline_ms=0x10"),
        *("budget_macs=-5", "budget_macs=1.5", "budget_macs=1e6", "budget_macs=", "budget_flops=x"),
        *("budget_macs=9223372036854775808", "budget_macs=١"),
        *("min_confidence=1.5", "min_confidence=-0.1", "min_confidence=nan"),
        *("min_exit=-1", "max_exit=-1", "top_k=-1", "top_k=x", "detail=everything", "detail="),
        *("model=", f"top_k={'9' * 5000}"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(query: str):
    name, value = query.split("=")

    with pytest.raises(InvalidParameter) as raised:
        parse_query([(name, value)], ClassifyQuery)

    assert raised.value.parameter == name
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        pytest.param([("top_k", "1"), ("top_k", "1")], "top_k", id="repeated"),
        pytest.param([("budget_macs", "4"), ("budget_flops", "8")], "budget_flops", id="two units"),
        pytest.param([("min_exit", "2"), ("max_exit", "1")], "min_exit", id="empty range"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(
    query: list[tuple[str, str]], parameter: str
):
    with pytest.raises(InvalidParameter) as raised:
        parse_query(query, ClassifyQuery)

    assert raised.value.parameter == parameter


def test_a_plan_needs_to_know_for_how_many_images():
    with pytest.raises(InvalidParameter, match="images is missing"):
        parse_query([("budget_macs", "1")], PlanQuery)

    with pytest.raises(InvalidParameter, match="images='0'"):
        parse_query([("images", "0")], PlanQuery)


def test_an_unknown_policy_is_told_the_known_ones():
    with pytest.raises(InvalidParameter, match="'geometric' or 'topk'"):
        parse_query([("policy", "magic")], BatchQuery)


def test_a_value_that_is_no_text_is_left_to_its_type():
    assert ClassifyQuery(budget_macs=5, deadline_ms=2.5).macs == 5


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=4))
def test_no_query_does_anything_but_parse_or_be_refused(items: list[tuple[str, str]]):
    with suppress(InvalidParameter):
        query = parse_query(items, ClassifyQuery)
        assert query.deadline_ms is None or query.deadline_ms >= 0
