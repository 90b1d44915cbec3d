"""What lane processes are told, and what they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backends.processes.jobs import (
    DONE,
    MAX_BYTES,
    Part,
    StageJob,
    failure,
    message_of,
)

ROWS = st.lists(st.integers(0, 2**16), max_size=9)
PARTS = st.builds(Part, st.integers(0, 2**40), st.integers(1, 2**16), st.none() | ROWS)
JOBS = st.builds(
    StageJob,
    model_index=st.integers(0, 99),
    stage_index=st.integers(0, 99),
    features_at=st.integers(0, 2**40),
    logits_at=st.integers(0, 2**40),
    parts=st.lists(PARTS, max_size=6),
    classify=ROWS,
)


@given(JOBS)
def test_a_job_is_read_as_it_was_written(job: StageJob):
    assert StageJob.unpack(job.pack()) == job


def test_no_rows_are_not_all_rows():
    parts = [Part(0, 2, None), Part(64, 2, ())]

    read = StageJob.unpack(StageJob(0, 0, 0, 0, parts, ()).pack())

    assert [part.rows for part in read.parts] == [None, []]


@given(st.text(max_size=2000))
def test_why_a_stage_failed_is_read_as_it_was_written(message: str):
    assert message_of(failure(message)) == message


@pytest.mark.parametrize("letter", ["a", "ß", "\U0001f41c"])
def test_a_long_message_is_cut_to_what_a_datagram_holds(letter: str):
    reply = failure(letter * MAX_BYTES)

    assert len(reply) <= MAX_BYTES
    assert message_of(reply) == letter * 2000


def test_the_name_of_a_file_that_is_no_text_can_be_told():
    assert message_of(failure("/models/\udcff.onnx")) == "/models/?.onnx"


def test_what_went_well_has_no_message():
    assert message_of(DONE) is None
