import math

import pytest

from service.engine.admission import AdmissionLedger
from service.engine.margin import AnswerMargin
from service.engine.pricing import PriceList
from service.engine.request import EngineLimits, ServedModel, Terms
from service.errors import DeadlineInfeasible, Overloaded

MARGIN = AnswerMargin(initial_s=0.5)


@pytest.fixture
def make_claim(model_key, exit_costs, make_costs):
    """Prices claims where a stage takes a second alone and for four images together."""
    model = ServedModel(model_key, exit_costs, (1.0,) * 4, 8, (3, 2, 2))

    def make(
        num_images=1,
        *,
        deadline_at=None,
        due_at=100.0,
        mandatory_exit=0,
        num_at_once=None,
        ready_at=None,
        num_lanes=1,
        now=0.0,
    ):
        prices = PriceList(model, make_costs().times(model_key), MARGIN, num_lanes=num_lanes)
        terms = Terms(
            model_key, num_images, due_at, deadline_at, mandatory_exit, num_at_once, 0.0, ready_at
        )
        return prices.claim(terms, now)

    return make


@pytest.fixture
def make_ledger():
    def make(*, num_lanes=1, **limits):
        given = {"max_in_flight": 8, "max_feature_bytes": 64, **limits}
        return AdmissionLedger(EngineLimits(**given), MARGIN, num_lanes=num_lanes)

    return make


@pytest.fixture
def ledger(make_ledger):
    return make_ledger()


def test_claim_is_priced_by_full_batches_and_its_own_way_by_its_size(make_claim):
    claim = make_claim(6, deadline_at=9.0, mandatory_exit=1)

    assert claim.owed_us == 6 * 2 * 250_000
    assert claim.full_depth_us == 6 * 4 * 250_000
    assert claim.alone_s == pytest.approx(4.0)
    assert claim.answer_by == 8.5
    assert claim.feature_bytes == 48


def test_images_of_one_claim_go_side_by_side(make_claim):
    assert make_claim(8, deadline_at=9.0, num_lanes=2).alone_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("num_images", "mandatory_exit"),
    [
        pytest.param(0, 0, id="no image"),
        pytest.param(1, 4, id="no such exit"),
        pytest.param(1, -1, id="exit before the first"),
    ],
)
def test_claim_for_nothing_is_refused(make_claim, num_images, mandatory_exit):
    with pytest.raises(ValueError, match="images to exit"):
        make_claim(num_images, mandatory_exit=mandatory_exit)


def test_deadline_below_what_an_idle_server_needs_is_infeasible(ledger, make_claim):
    with pytest.raises(DeadlineInfeasible) as refused:
        ledger.check(make_claim(deadline_at=2.2, mandatory_exit=1), 0.0)

    # A tenth of the deadline is kept for writing the answer.
    assert refused.value.minimum_s == pytest.approx(2.0 / 0.9)
    ledger.check(make_claim(deadline_at=2.3, mandatory_exit=1), 0.0)


def test_all_images_of_a_cohort_must_reach_their_first_exit(ledger, make_claim):
    with pytest.raises(DeadlineInfeasible):
        ledger.check(make_claim(5, deadline_at=2.2), 0.0)
    ledger.check(make_claim(5, deadline_at=2.3), 0.0)


def test_more_images_than_there_may_be_are_refused_until_some_have_gone(ledger, make_claim):
    charge = ledger.admit(make_claim(6), 0.0)
    ledger.admit(make_claim(2, deadline_at=50.0), 0.0)

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=50.0), 0.0)
    ledger.release(charge)
    ledger.check(make_claim(6), 0.0)

    assert refused.value.retry_after_s == pytest.approx(8.0)


def test_work_without_a_deadline_leaves_a_quarter_of_the_places_to_the_others(ledger, make_claim):
    ledger.admit(make_claim(6), 0.0)

    with pytest.raises(Overloaded):
        ledger.check(make_claim(), 0.0)
    ledger.check(make_claim(2, deadline_at=50.0), 0.0)


def test_features_are_bounded_too(make_ledger, make_claim):
    ledger = make_ledger(max_in_flight=100, max_feature_bytes=20)
    ledger.admit(make_claim(2), 0.0)

    with pytest.raises(Overloaded):
        ledger.check(make_claim(), 0.0)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"max_in_flight": 2}, id="images"),
        pytest.param({"max_feature_bytes": 20}, id="bytes"),
    ],
)
def test_cohort_larger_than_all_there_is_needs_windows(make_ledger, make_claim, limits):
    ledger = make_ledger(**limits)

    with pytest.raises(ValueError, match="windows"):
        ledger.check(make_claim(3), 0.0)
    ledger.check(make_claim(3, num_at_once=2), 0.0)


def test_work_due_earlier_may_forbid_a_deadline(ledger, make_claim):
    ledger.admit(make_claim(7, deadline_at=5.0), 0.0)

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=5.05), 3.0)

    # 1.75 seconds for the others, one of its own, and half a second of margin.
    assert refused.value.retry_after_s == pytest.approx(3.0 + 1.75 + 1.0 + 0.5 - 5.05)


def test_lanes_share_what_is_due_earlier(make_ledger, make_claim):
    ledger = make_ledger(num_lanes=2)
    ledger.admit(make_claim(7, deadline_at=5.0, num_lanes=2), 0.0)

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=5.1), 3.4)
    ledger.check(make_claim(deadline_at=5.1), 2.7)

    assert refused.value.retry_after_s == pytest.approx(3.4 + 0.875 + 1.0 + 0.5 - 5.1)


def test_work_due_later_does_not_forbid_a_deadline(ledger, make_claim):
    ledger.admit(make_claim(7, deadline_at=60.0), 0.0)

    ledger.check(make_claim(deadline_at=2.0), 0.0)


def test_newcomer_must_not_make_another_late(ledger, make_claim):
    ledger.admit(make_claim(4, deadline_at=5.1), 0.0)

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=5.05), 3.5)
    ledger.check(make_claim(deadline_at=5.05), 3.3)

    assert refused.value.retry_after_s == pytest.approx(3.5 + 0.25 + 1.0 + 0.5 - 5.1)


def test_another_who_is_late_already_refuses_nobody(ledger, make_claim):
    ledger.admit(make_claim(deadline_at=6.0, mandatory_exit=1), 0.0)

    ledger.check(make_claim(deadline_at=5.9), 4.2)


def test_running_batch_counts_until_its_expected_end(ledger, make_claim):
    ledger.batch_began(0, 3.0)

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=4.0), 0.0)
    retry_after_s = ledger.retry_after_s(1.0)
    ledger.batch_ended(0)
    ledger.check(make_claim(deadline_at=4.0), 0.0)

    assert refused.value.retry_after_s == pytest.approx(0.4)
    assert retry_after_s == pytest.approx(2.0)


def test_batch_that_overruns_is_expected_to_go_on_as_long_again(ledger, make_claim):
    ledger.batch_began(0, 3.0)

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=6.5), 4.5)

    assert refused.value.retry_after_s == pytest.approx(6.0 + 1.0 + 0.5 - 6.5)


def test_one_free_lane_is_enough_for_one_image(make_ledger, make_claim):
    ledger = make_ledger(num_lanes=2)
    ledger.batch_began(1, 30.0)

    ledger.check(make_claim(deadline_at=2.0), 0.0)


def test_pixels_that_are_not_there_yet_begin_later(ledger, make_claim):
    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=10.0, ready_at=9.0), 0.0)
    ledger.check(make_claim(deadline_at=10.0, ready_at=8.4), 0.0)

    assert refused.value.retry_after_s == pytest.approx(0.5)


def test_overdue_work_takes_its_share_of_the_time(make_ledger, make_claim):
    ledger = make_ledger(background_share=0.5)
    ledger.admit(make_claim(due_at=1.0), 0.0)
    ledger.admit(make_claim(4, deadline_at=9.0), 0.0)

    ledger.check(make_claim(deadline_at=9.1), 0.9)
    with pytest.raises(Overloaded):
        ledger.check(make_claim(deadline_at=9.1), 6.0)


def test_work_without_a_deadline_is_bounded_by_numbers_alone(ledger, make_claim):
    ledger.batch_began(0, 1000.0)

    ledger.check(make_claim(due_at=0.0), 0.0)


def test_stages_that_began_are_no_longer_owed(ledger, make_claim):
    charge = ledger.admit(make_claim(2, deadline_at=9.0, mandatory_exit=1), 0.0)

    owed = [ledger.owed_s]
    for stage_index in (0, 1, 2):
        for _ in range(2):
            ledger.discharge(charge, stage_index, stage_index)
        owed.append(ledger.owed_s)

    assert owed == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_spare_time_is_what_the_tightest_deadline_leaves(ledger, make_claim):
    ledger.admit(make_claim(4, deadline_at=9.0), 0.0)
    ledger.admit(make_claim(4, deadline_at=9.1), 0.0)

    assert ledger.spare_s(0, 5.0) == pytest.approx(9.1 - 0.5 - 1.0 - 1.0 - 5.0)


def test_other_lane_spares_time_for_this_one(make_ledger, make_claim):
    ledger = make_ledger(num_lanes=2)
    ledger.admit(make_claim(deadline_at=9.0), 0.0)

    assert ledger.spare_s(0, 5.0) == math.inf
    ledger.batch_began(1, 30.0)
    assert ledger.spare_s(0, 5.0) == pytest.approx(9.0 - 0.5 - 1.0 - 5.0)


def test_there_is_no_end_of_spare_time_without_deadlines(ledger, make_claim):
    ledger.admit(make_claim(4), 0.0)

    assert ledger.spare_s(0, 0.0) == math.inf


def test_those_who_have_their_answer_leave_all_the_time(ledger, make_claim):
    charge = ledger.admit(make_claim(deadline_at=5.0), 0.0)
    ledger.discharge(charge, 0, 0)

    assert ledger.spare_s(0, 0.0) == math.inf


def test_optional_batches_are_as_long_as_a_quarter_of_the_shortest_deadline_lately(
    ledger, make_claim
):
    seen = [ledger.longest_optional_s(0.0)]
    for deadline_at, now in ((8.0, 0.0), (6.0, 1.0)):
        ledger.release(ledger.admit(make_claim(deadline_at=deadline_at), now))
        seen.append(ledger.longest_optional_s(now))
    seen += [ledger.longest_optional_s(now) for now in (11.0, 12.1)]

    assert seen == [math.inf, 2.0, 1.5, 1.5, math.inf]


def test_charge_is_corrected_without_standing_in_its_own_way(ledger, make_claim):
    claim = make_claim(8, deadline_at=9.0)
    charge = ledger.admit(claim, 0.0)

    ledger.correct(charge, claim, 6.4)
    with pytest.raises(DeadlineInfeasible):
        ledger.correct(charge, claim, 6.6)

    assert ledger.owed_s == pytest.approx(2.0)


def test_everything_returns_to_zero(ledger, make_claim):
    charges = [
        ledger.admit(make_claim(deadline_at=9.0), 0.0),
        ledger.admit(make_claim(2, deadline_at=9.0), 0.0),
        ledger.admit(make_claim(3), 0.0),
        ledger.admit(make_claim(2), 0.0),
    ]

    for charge in (*charges, charges[0]):
        ledger.release(charge)

    assert (ledger.num_charges, ledger.num_in_flight, ledger.num_background) == (0, 0, 0)
    assert (ledger.feature_bytes, ledger.full_depth_us, ledger.owed_s) == (0, 0, 0.0)
    assert ledger.retry_after_s(0.0) == 0.0


def learn_largest_cushion(ledger: AdmissionLedger) -> None:
    """Have half of every deadline kept free."""
    for _ in range(100):
        ledger.cushion.heard(is_answered=False)


def test_who_must_wait_for_others_is_let_in_only_where_a_cushion_is_left(ledger, make_claim):
    ledger.admit(make_claim(deadline_at=2.9), 0.0)
    ledger.check(make_claim(deadline_at=3.0), 0.0)

    learn_largest_cushion(ledger)
    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=3.0), 0.0)
    ledger.check(make_claim(deadline_at=3.6), 0.0)

    # A quarter second for the other, one of his own, a margin of a tenth, half of his deadline.
    assert refused.value.retry_after_s == pytest.approx(0.25 + 1.0 + 0.3 + 1.5 - 3.0)


def test_who_need_not_wait_needs_no_cushion(ledger, make_claim):
    ledger.admit(make_claim(deadline_at=60.0), 0.0)

    learn_largest_cushion(ledger)

    ledger.check(make_claim(deadline_at=1.8), 0.0)


def test_while_all_lanes_rest_only_who_can_wait_for_one_is_let_in(make_ledger, make_claim):
    ledger = make_ledger(num_lanes=2)
    ledger.lane_rests(0)
    ledger.lane_rests(1)

    with pytest.raises(Overloaded):
        ledger.check(make_claim(deadline_at=2.0), 0.0)
    ledger.check(make_claim(deadline_at=3.0), 0.0)

    assert ledger.backlog_s(5.0) == pytest.approx(1.0)
    assert ledger.retry_after_s(5.0) == pytest.approx(1.0)
