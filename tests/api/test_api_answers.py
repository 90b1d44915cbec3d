import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from starlette.responses import Response, StreamingResponse

from model_store.confidence import max_softmax, probabilities
from service.api.answers import (
    AnswerForm,
    ModelWords,
    answers_json,
    cost_json,
    deadline_json,
    milliseconds,
    model_json,
    timing_json,
)
from service.api.batch_answers import batch_pieces, batch_response, images_per_piece
from service.api.budget_answers import plan_json
from service.api.classify_answer import AnswerWriter
from service.api.ranking import most_likely, rank_record, rank_records
from service.api.schemas import BatchResponse, ClassifyResponse, PlanResponse
from service.commands import BatchImage, DeadlineReport
from service.engine.request import ExitRecord
from service.errors import ImageUndecodable
from tests.api.conftest import (
    COSTS,
    LABELS,
    TEMPERATURES,
    answer_of,
    batch_done_of,
    classified_of,
    plan_done_of,
    record_of,
)

SHORT = AnswerForm(top_k=1, detail=False)
FULL = AnswerForm(top_k=4, detail=True)


@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 20)),
        elements=st.sampled_from([0.0, 0.1, 0.5]),
    ),
    st.integers(1, 25),
)
def test_classes_are_ranked_by_probability_then_by_index(table: NDArray[np.float64], count: int):
    order = most_likely(table, count)

    assert order.shape == (len(table), min(count, table.shape[1]))
    for row, columns in zip(table.tolist(), order.tolist(), strict=True):
        assert columns == sorted(range(len(row)), key=lambda k: (-row[k], k))[: len(columns)]


def test_records_are_ranked_at_the_temperature_of_their_own_exit():
    records = [record_of(1, 0.0, 3.0, 1.0, -1.0), record_of(0, 5.0, 3.0, 1.0, -1.0)]

    deep, shallow = rank_records(records, TEMPERATURES, 2)

    assert (deep.indices, shallow.indices) == ([1, 2], [0, 1])
    assert deep.confidences[0] == records[0].confidence
    assert shallow.confidences == sorted(probabilities(records[1].logits, 1.0).tolist())[::-1][:2]


LOGITS = st.lists(st.sampled_from([-90.0, -3.0, 0.0, 0.5, 2.0, 88.0]), min_size=4, max_size=100)


@given(LOGITS, st.integers(1, 110), st.sampled_from([0.3, 1.0, 2.5]))
def test_one_record_is_ranked_as_many_are(logits: list[float], count: int, temperature: float):
    row = np.array(logits, dtype=np.float32)
    record = ExitRecord(0, row, float(max_softmax(row, temperature)))

    alone = rank_record(record, temperature, count)
    (among,) = rank_records([record], [temperature], count)

    assert alone.confidences[0] == record.confidence
    assert alone.confidences == pytest.approx(among.confidences, rel=1e-12, abs=1e-300)
    assert len(alone.indices) == len(set(alone.indices)) == min(count, len(logits))
    assert alone.indices[0] == among.indices[0]


@pytest.mark.parametrize("form", [SHORT, FULL, AnswerForm(top_k=0, detail=False)])
def test_what_is_joined_from_pieces_is_what_is_written_as_a_whole(form: AnswerForm):
    passed = (record_of(0, 2.0, 0.1, 0.0, 0.0), record_of(1, 0.3, 0.0, 4.0, 0.0))
    done = classified_of(answer=answer_of(*passed), deadline=DeadlineReport(0.03, 0.0123))
    words = ModelWords(done.labels, done.temperatures, done.costs.cumulative_macs)

    told = json.loads(AnswerWriter().write(done, form))

    (expected,) = answers_json([done.answer], words, form)
    for name in ("exit", "prediction", "exits"):
        assert told.get(name) == expected.get(name)
    assert [each["label"] for each in told.get("top_k", ())] == [
        each["label"] for each in expected.get("top_k", ())
    ]
    assert told["model"] == model_json(done.model)
    assert told["cost"] == cost_json(done.spent_macs, words)
    assert told["deadline"] == deadline_json(done.deadline)
    assert told["timing_ms"] == timing_json(done.timing)


def test_labels_are_told_in_any_script_and_for_each_model():
    writer = AnswerWriter()

    for labels in (('a "b"', "\u732b", "c", "d"), LABELS):
        told = json.loads(writer.write(classified_of(labels=labels), FULL))

        assert {each["label"] for each in told["top_k"]} == set(labels)


def test_confidences_told_are_those_that_were_decided_on():
    done = classified_of(answer=answer_of(record_of(0, 30.0, 0.0, 0.0, 0.0)))

    told = json.loads(AnswerWriter().write(done, SHORT))

    assert told["prediction"]["confidence"] == done.answer.record.confidence < 1


def test_an_answer_tells_macs_flops_and_milliseconds():
    told = json.loads(AnswerWriter().write(classified_of(), SHORT))

    assert told["cost"] == {"macs": 320, "flops": 640, "share_of_full": round(320 / 330, 6)}
    assert told["timing_ms"] == {"total": 10, "receive": 1, "decode": 2, "queue": 3, "compute": 4}
    assert told["deadline"] is None
    assert told["model"] == {"name": "net", "version": "2"}


def test_the_first_of_the_list_is_the_prediction():
    told = json.loads(AnswerWriter().write(classified_of(), AnswerForm(top_k=100, detail=False)))

    assert told["top_k"][0] == told["prediction"]
    assert [each["index"] for each in told["top_k"]] == [1, 2, 0, 3]
    assert sum(each["confidence"] for each in told["top_k"]) == pytest.approx(1)


def test_no_list_is_given_where_none_is_wanted():
    told = json.loads(AnswerWriter().write(classified_of(), AnswerForm(top_k=0, detail=False)))

    assert "top_k" not in told
    assert told["prediction"]["label"] == "bee"


def test_every_exit_passed_is_told_with_its_price():
    passed = (record_of(0, 2.0, 0.0, 0.0, 0.0), record_of(1, 0.0, 0.0, 4.0, 0.0))

    told = json.loads(AnswerWriter().write(classified_of(answer=answer_of(*passed)), FULL))

    assert [each["index"] for each in told["exits"]] == [0, 1]
    assert [each["macs"] for each in told["exits"]] == list(COSTS.cumulative_macs)
    assert [each["prediction"]["label"] for each in told["exits"]] == ["ant", "cat"]
    assert told["exits"][-1]["prediction"] == told["prediction"]
    ClassifyResponse.model_validate(told)


@pytest.mark.parametrize(
    ("remaining_s", "told_ms", "met"),
    [(0.0125, 12.5, True), (-0.0125, -12.5, False), (0.0, 0.0, True), (-1e-9, 0.0, True)],
)
def test_a_deadline_is_met_exactly_when_the_time_told_is_not_negative(
    remaining_s: float, told_ms: float, met: bool
):
    done = classified_of(deadline=DeadlineReport(0.03, remaining_s))

    told = json.loads(AnswerWriter().write(done, SHORT))["deadline"]

    assert told == {"requested_ms": 30.0, "met": met, "remaining_ms": told_ms}
    assert str(told["remaining_ms"]) != "-0.0"


@given(st.floats(-10, 10))
def test_milliseconds_are_told_to_a_tenth_of_a_microsecond(seconds: float):
    assert milliseconds(seconds) == pytest.approx(1000 * seconds, abs=6e-5)


def text_of(response: Response) -> str:
    return bytes(response.body).decode()


def images(count: int) -> list[BatchImage]:
    return [
        BatchImage(k, f"{k}.png", None, ImageUndecodable("it is no image"), 0)
        if k % 7 == 3
        else BatchImage(k, None, answer_of(record_of(k % 2, float(k % 5), 1, 2, 0)), None, 110)
        for k in range(count)
    ]


@pytest.mark.parametrize("form", [SHORT, FULL, AnswerForm(top_k=0, detail=False)])
def test_a_batch_tells_of_every_image_in_order(form: AnswerForm):
    done = batch_done_of(*images(20), skipped=2)

    told = json.loads(text_of(batch_response(done, form)))

    BatchResponse.model_validate(told)
    assert [result["index"] for result in told["results"]] == list(range(20))
    assert told["skipped"] == 2
    bad, good = told["results"][3], told["results"][4]
    assert bad["error"]["type"] == "/problems/image-undecodable"
    assert bad["cost"] == {"macs": 0, "flops": 0, "share_of_full": 0.0}
    assert bad["filename"] == "3.png"
    assert "filename" not in good
    assert ("top_k" in good) == bool(form.top_k)
    assert ("exits" in good) == form.detail


async def test_a_large_batch_is_written_in_pieces_that_make_one_document():
    done = batch_done_of(*images(1000))

    response = batch_response(done, FULL)

    assert isinstance(response, StreamingResponse)
    pieces = [str(piece) async for piece in response.body_iterator]
    assert len(pieces) > 5
    told = json.loads("".join(pieces))
    assert [result["index"] for result in told["results"]] == list(range(1000))
    assert "".join(pieces) == "".join(batch_pieces(done, FULL))


def test_the_more_is_told_of_an_image_the_fewer_are_written_at_once():
    done = batch_done_of()

    assert images_per_piece(done, SHORT) > images_per_piece(done, FULL) >= 1
    many = AnswerForm(top_k=10**6, detail=True)
    assert images_per_piece(batch_done_of(labels=("x",) * 10_000), many) == 1


def test_a_name_that_is_no_text_can_be_told_all_the_same():
    image = BatchImage(0, "\udcff.png", answer_of(), None, 330)

    told = json.loads(text_of(batch_response(batch_done_of(image), SHORT)))

    assert told["results"][0]["filename"] == "\udcff.png"


def test_a_budget_is_told_in_both_units():
    told = json.loads(text_of(batch_response(batch_done_of(), SHORT)))["budget"]

    for name in ("requested", "planned", "spent"):
        assert told[f"{name}_flops"] == 2 * told[f"{name}_macs"]
    assert (told["policy"], told["regime"], told["bound_by"]) == (
        "geometric",
        "constrained",
        "budget",
    )


def test_a_plan_without_a_budget_is_bound_by_nothing():
    told = json.loads(plan_json(plan_done_of()))

    PlanResponse.model_validate(told)
    assert (told["policy"], told["bound_by"]) == ("none", "none")
    assert (told["requested_macs"], told["requested_flops"]) == (None, None)
    assert "spent_macs" not in told
