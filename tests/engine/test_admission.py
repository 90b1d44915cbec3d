import math

import pytest

from service.engine.admission import AdmissionLedger, claim_for
from service.engine.request import EngineLimits, ServedModel, Terms
from service.errors import DeadlineInfeasible, Overloaded


@pytest.fixture
def make_claim(model_key, exit_costs, make_costs):
    """Prices claims where a stage takes a second alone and for four images together."""
    model = ServedModel(model_key, exit_costs, (1.0,) * 4, 8, (3, 2, 2))
    times = make_costs().times(model_key)

    def make(num_images=1, *, deadline_at=None, due_at=None, mandatory_exit=0, num_at_once=None):
        if due_at is None:
            due_at = 100.0 if deadline_at is None else deadline_at
        terms = Terms(model_key, num_images, due_at, deadline_at, mandatory_exit, num_at_once)
        return claim_for(terms, model, times, margin_s=0.5)

    return make


@pytest.fixture
def ledger():
    return AdmissionLedger(
        EngineLimits(max_in_flight=8, max_feature_bytes=64, deadline_margin_s=0.5)
    )


def test_claim_is_priced_by_full_batches_and_its_own_way_by_its_size(make_claim):
    claim = make_claim(6, deadline_at=9.0, mandatory_exit=1)

    assert claim.owed_s == pytest.approx(6 * 2 * 0.25)
    assert claim.full_depth_s == pytest.approx(6 * 4 * 0.25)
    assert claim.alone_s == pytest.approx(4.0)
    assert claim.answer_by == 8.5
    assert claim.feature_bytes == 48


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
        ledger.check(make_claim(deadline_at=2.4, mandatory_exit=1), 0.0)

    # A tenth of the deadline is kept for writing the answer.
    assert refused.value.minimum_s == pytest.approx(2.0 / 0.9)
    ledger.check(make_claim(deadline_at=2.5, mandatory_exit=1), 0.0)


def test_all_images_of_a_cohort_must_reach_their_first_exit(ledger, make_claim):
    with pytest.raises(DeadlineInfeasible):
        ledger.check(make_claim(5, deadline_at=2.4), 0.0)
    ledger.check(make_claim(5, deadline_at=2.5), 0.0)


def test_more_images_than_there_may_be_are_refused_until_some_have_gone(ledger, make_claim):
    charge = ledger.admit(make_claim(8))

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(), 0.0)
    ledger.release(charge)
    ledger.check(make_claim(8), 0.0)

    assert refused.value.retry_after_s == pytest.approx(8.0)


def test_features_are_bounded_too(make_claim):
    ledger = AdmissionLedger(EngineLimits(max_in_flight=100, max_feature_bytes=20))
    ledger.admit(make_claim(2))

    with pytest.raises(Overloaded):
        ledger.check(make_claim(), 0.0)


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(EngineLimits(max_in_flight=2), id="images"),
        pytest.param(EngineLimits(max_feature_bytes=20), id="bytes"),
    ],
)
def test_cohort_larger_than_all_there_is_needs_windows(make_claim, limits):
    ledger = AdmissionLedger(limits)

    with pytest.raises(ValueError, match="windows"):
        ledger.check(make_claim(3), 0.0)
    ledger.check(make_claim(3, num_at_once=2), 0.0)


def test_work_due_earlier_may_forbid_a_deadline(ledger, make_claim):
    ledger.admit(make_claim(7, deadline_at=3.0))

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=3.1), 0.0)

    # 1.75 seconds for the others, one of its own, and half a second of margin.
    assert refused.value.retry_after_s == pytest.approx(0.15)


def test_work_due_later_does_not_forbid_a_deadline(ledger, make_claim):
    ledger.admit(make_claim(7, due_at=60.0))

    ledger.check(make_claim(deadline_at=2.0), 0.0)


def test_newcomer_must_not_make_another_late(ledger, make_claim):
    ledger.admit(make_claim(4, deadline_at=1.6))

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=1.55), 0.0)
    ledger.check(make_claim(deadline_at=2.6), 0.0)

    assert refused.value.retry_after_s == pytest.approx(0.15)


def test_another_who_is_late_already_refuses_nobody(ledger, make_claim):
    ledger.admit(make_claim(deadline_at=5.0))

    ledger.check(make_claim(deadline_at=5.99, due_at=4.99), 4.0)


def test_running_batch_counts_until_its_expected_end(ledger, make_claim):
    ledger.batch_began(3.0)

    with pytest.raises(Overloaded) as refused:
        ledger.check(make_claim(deadline_at=4.0), 0.0)
    retry_after_s = ledger.retry_after_s(1.0)
    ledger.batch_ended()
    ledger.check(make_claim(deadline_at=4.0), 0.0)

    assert refused.value.retry_after_s == pytest.approx(0.5)
    assert retry_after_s == pytest.approx(2.0)


def test_work_without_a_deadline_is_bounded_by_numbers_alone(ledger, make_claim):
    ledger.batch_began(1000.0)
    ledger.admit(make_claim(4, deadline_at=1.6))

    ledger.check(make_claim(due_at=0.0), 0.0)


def test_stages_that_ran_are_no_longer_owed(ledger, make_claim):
    charge = ledger.admit(make_claim(2, deadline_at=9.0, mandatory_exit=1))

    owed = [ledger.owed_s]
    for stage_index in (0, 1, 2):
        ledger.stage_ran(charge, stage_index, 2)
        owed.append(ledger.owed_s)

    assert owed == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_spare_time_is_what_the_tightest_deadline_leaves(ledger, make_claim):
    ledger.admit(make_claim(4, deadline_at=5.0))
    ledger.admit(make_claim(4, deadline_at=5.1))

    assert ledger.spare_s(0.0) == pytest.approx(5.1 - 0.5 - 1.0 - 1.0)


def test_there_is_no_end_of_spare_time_without_deadlines(ledger, make_claim):
    ledger.admit(make_claim(4))

    assert ledger.spare_s(0.0) == math.inf


def test_those_who_have_their_answer_leave_all_the_time(ledger, make_claim):
    charge = ledger.admit(make_claim(deadline_at=5.0))
    ledger.stage_ran(charge, 0, 1)

    assert ledger.spare_s(0.0) == math.inf


def test_everything_returns_to_zero(ledger, make_claim):
    charges = [
        ledger.admit(make_claim(deadline_at=9.0)),
        ledger.admit(make_claim(3)),
        ledger.admit(make_claim(2)),
    ]

    for charge in (*charges, charges[0]):
        ledger.release(charge)

    assert ledger.is_empty
    assert (ledger.num_in_flight, ledger.feature_bytes) == (0, 0)
    assert (ledger.full_depth_s, ledger.owed_s) == (0.0, 0.0)
    assert ledger.retry_after_s(0.0) == 0.0
