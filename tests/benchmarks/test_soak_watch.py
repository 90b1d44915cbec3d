import pytest

from benchmarks.soak.watch import (
    count_places,
    growth_bytes,
    is_flat,
    read_metrics,
    unsettled,
)
from service.engine.admission import AdmissionLedger
from service.engine.margin import AnswerMargin
from service.engine.pricing import Claim
from service.engine.request import EngineLimits

MIB = 2**20

EXPOSITION = """\
# HELP anytime_images_admitted_total Images let in.
# TYPE anytime_images_admitted_total counter
anytime_images_admitted_total{model="m@1"} 10.0
anytime_exits_total{model="m@1",exit="0",reason="load"} 4.0
anytime_exits_total{model="m@1",exit="6",reason="last_exit"} 3.0
anytime_images_unanswered_total{error="Abandoned",model="m@1"} 2.0
anytime_requests_in_flight 1.0
"""


def test_samples_of_a_family_are_added_up_whatever_their_labels():
    metrics = read_metrics(EXPOSITION)

    assert metrics["anytime_exits_total"] == 7
    assert metrics["anytime_requests_in_flight"] == 1


def test_an_image_admitted_and_neither_answered_nor_given_up_is_unsettled():
    assert unsettled(read_metrics(EXPOSITION)) == 1


def test_places_held_are_counted_among_whatever_else_there_is():
    claim = Claim(
        num_images=1,
        num_at_once=1,
        feature_bytes=8,
        shares_us=(10,),
        full_depth_us=40,
        alone_s=1e-5,
        due_at=1.0,
        ready_at=0.0,
        answer_by=None,
        deadline_s=0.0,
        owed_us=10,
    )
    ledger = AdmissionLedger(EngineLimits(), AnswerMargin(), num_lanes=1)
    held, given_back = ledger.admit(claim, 0.0), ledger.admit(claim, 0.0)
    ledger.release(given_back)

    assert count_places([claim, ledger, held, given_back, "a string"]) == 1


@pytest.mark.parametrize(
    ("resident_mib", "expected"),
    [
        ([100, 300, 400, 400, 401, 399, 400, 402], True),
        ([400, 400, 405, 410, 415, 420, 425, 430], False),
        ([100, 200, 300, 300, 300, 300, 300, 300], True),
    ],
    ids=["warms up, then stays", "creeps", "warms up within the first quarters"],
)
def test_memory_is_judged_after_the_warm_up(resident_mib, expected):
    # Two samples a quarter: the second quarter's are the third and the fourth.
    assert is_flat([m * MIB for m in resident_mib]) is expected


def test_growth_is_from_the_second_quarter_to_the_last():
    assert growth_bytes([0, 0, 10, 10, 50, 50, 30, 30]) == 20
