from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.margin import AnswerMargin
from service.engine.quantile import RecentQuantile

SECONDS = st.floats(0.0, 10.0)


def fed(margin: AnswerMargin, values: Iterable[float]) -> AnswerMargin:
    for value in values:
        margin.observe(value)
    return margin


def test_first_margin_is_a_cautious_guess():
    assert AnswerMargin(initial_s=0.002).margin_s(1.0) == 0.002


def test_margin_is_a_tenth_of_the_deadline_at_most():
    margin = fed(AnswerMargin(), [0.5])

    assert margin.margin_s(0.030) == pytest.approx(0.003)
    assert margin.margin_s(60.0) == 0.5


def test_no_margin_is_kept_once_the_deadline_is_past():
    assert AnswerMargin().margin_s(-1.0) == 0.0


def test_guess_stands_until_a_thousand_answers_were_on_time():
    margin = fed(AnswerMargin(initial_s=0.002), [0.0001] * 999)
    before = margin.margin_s(1.0)

    fed(margin, [0.0001] * 257)

    assert (before, margin.margin_s(1.0)) == (0.002, 0.0001)


def test_late_answer_counts_at_once_while_few_are_known():
    assert fed(AnswerMargin(initial_s=0.002), [0.004]).margin_s(1.0) == 0.004


def test_one_late_answer_in_thousands_does_not_count():
    assert fed(AnswerMargin(), [0.0001] * 3000 + [1.0]).margin_s(60.0) == 0.0001


def test_ten_late_answers_in_thousands_do():
    assert fed(AnswerMargin(), [0.0001] * 3000 + [0.05] * 10).margin_s(60.0) == 0.05


def test_what_was_long_ago_is_forgotten():
    margin = fed(AnswerMargin(), [0.05] * 4096)

    fed(margin, [0.0001] * 4352)

    assert margin.margin_s(60.0) == 0.0001


def test_answer_that_left_early_is_not_late():
    assert fed(AnswerMargin(initial_s=0.0), [-1.0]).margin_s(1.0) == 0.0


@given(lateness=st.lists(SECONDS, max_size=20), deadline_s=st.floats(-1.0, 100.0))
def test_margin_is_never_negative_and_leaves_nine_tenths(lateness, deadline_s):
    margin_s = fed(AnswerMargin(), lateness).margin_s(deadline_s)

    assert 0.0 <= margin_s <= max(0.0, deadline_s) * 0.1 + 1e-15


@given(lateness=st.lists(SECONDS, max_size=20), work_s=st.floats(0.0, 10.0))
def test_least_deadline_leaves_just_the_work_after_its_margin(lateness, work_s):
    margin = fed(AnswerMargin(), lateness)

    deadline_s = margin.least_deadline_s(work_s)

    assert deadline_s - margin.margin_s(deadline_s) == pytest.approx(work_s)


@pytest.mark.parametrize("settings", [{"max_share": 0.0}, {"max_share": 1.0}, {"initial_s": -1.0}])
def test_impossible_margins_are_refused(settings):
    with pytest.raises(ValueError, match="margin"):
        AnswerMargin(**settings)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@given(values=st.lists(SECONDS, min_size=1, max_size=300))
def test_quantile_is_never_below_that_of_the_window(share, values):
    quantile = RecentQuantile(share, window=64)
    blocks = len(values) // 4 * 4  # of 4 observations each, 16 of them

    for value in (*values[:blocks], values[-1]):
        quantile.observe(value)

    # The new block holds one observation; 15 full ones are remembered with it.
    window = sorted((*values[max(0, blocks - 60) : blocks], values[-1]))
    exact = window[-1 - int(len(window) * (1.0 - share))]
    assert quantile.num_observations == len(window)
    assert quantile.value is not None
    assert quantile.value >= exact


@given(values=st.lists(SECONDS, min_size=1, max_size=300))
def test_quantile_is_one_of_what_was_seen(values):
    quantile = RecentQuantile(0.9, window=32)

    for value in values:
        quantile.observe(value)

    assert quantile.value in values


def test_quantile_of_nothing_is_unknown():
    assert RecentQuantile(0.9, window=16).value is None


@pytest.mark.parametrize(("share", "window"), [(0.0, 16), (1.0, 16), (0.5, 15)])
def test_impossible_quantiles_are_refused(share, window):
    with pytest.raises(ValueError, match="not"):
        RecentQuantile(share, window=window)
