import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.serving.judge import NOTHING, Outcomes, judge
from benchmarks.serving.recording import NO_STATUS, Recording
from benchmarks.serving.server import Answer
from benchmarks.serving.summary import Summary, paired_difference, summarise

LABELS = np.arange(10)
DEADLINE_MS = 30.0


def recording(
    *,
    latencies_ms: list[float],
    statuses: list[int] | None = None,
    bodies: list[bytes] | None = None,
    sent_late_ms: float = 0.0,
) -> Recording:
    """Requests due a second apart, of images 0, 1, …; NaN is no answer."""
    number = len(latencies_ms)
    scheduled_at = 100 + np.arange(number, dtype=np.float64)
    missing = np.isnan(latencies_ms)
    return Recording(
        scheduled_at=scheduled_at,
        sent_at=scheduled_at + np.float64(sent_late_ms / 1000),
        last_byte_at=scheduled_at + np.array(latencies_ms) / 1000,
        statuses=np.where(missing, NO_STATUS, 200) if statuses is None else np.array(statuses),
        image_indices=np.arange(number),
        bodies=[said(i) for i in range(number)] if bodies is None else bodies,
    )


def said(label: int, *, exit_index: int = 0) -> bytes:
    return json.dumps({"label": label, "exit": exit_index}).encode()


def read(body: bytes) -> Answer:
    answer = json.loads(body)
    return Answer(label_index=answer["label"], exit_index=answer["exit"], is_met=True)


def judged(**about: Any) -> Outcomes:
    return judge(recording(**about), read, LABELS, deadline_ms=DEADLINE_MS, seconds=1.0)


def summary_of(*runs: Outcomes) -> Summary:
    return summarise(runs, num_exits=3)


@pytest.mark.parametrize(
    ("latency_ms", "is_in_time"),
    [(29.0, True), (30.9, True), (31.1, False), (np.nan, False)],
    ids=["early", "within the wire's millisecond", "late", "never"],
)
def test_in_time_is_up_to_a_millisecond_after_the_deadline(latency_ms, is_in_time):
    assert judged(latencies_ms=[latency_ms]).is_in_time.tolist() == [is_in_time]


def test_time_runs_from_the_scheduled_send_not_from_the_send():
    outcomes = judged(latencies_ms=[32.0], sent_late_ms=5.0)

    assert outcomes.lag_ms[0] == pytest.approx(5.0)
    assert not outcomes.is_in_time[0]


def test_a_refusal_is_a_miss_however_quick_it_is():
    outcomes = judged(latencies_ms=[1.0], statuses=[503], bodies=[b"{}"])

    assert not outcomes.is_in_time[0]
    assert outcomes.is_refused[0]


def test_a_200_that_cannot_be_read_is_a_miss():
    outcomes = judged(latencies_ms=[1.0], bodies=[b"<html>"])

    assert not outcomes.is_in_time[0]
    assert not outcomes.is_refused[0]


def test_useful_is_right_and_in_time():
    bodies = [said(0), said(9), said(2)]
    outcomes = judged(latencies_ms=[1.0, 1.0, 99.0], bodies=bodies)

    assert outcomes.is_useful.tolist() == [True, False, False]


def test_accuracy_under_deadline_is_over_all_arrivals():
    summary = summary_of(judged(latencies_ms=[1.0, 1.0, np.nan, 50.0]))

    assert summary.attainment == 0.5
    assert summary.accuracy == 0.5
    assert summary.goodput_hz == 2.0


def test_lateness_is_of_the_answered_and_nothing_for_those_in_time():
    late_ms = summary_of(judged(latencies_ms=[1.0, 34.0, np.nan])).lateness_ms

    assert late_ms.most == pytest.approx(4.0)
    assert late_ms.p50 == pytest.approx(2.0)


def test_refusals_have_their_own_percentiles():
    summary = summary_of(
        judged(latencies_ms=[1.0, 20.0], statuses=[503, 200], bodies=[b"", said(1)])
    )

    assert summary.refused == 0.5
    assert summary.refusal_ms.p99 == pytest.approx(1.0)
    assert summary.latency_ms.p50 == pytest.approx(20.0)


def test_exit_shares_are_of_answers_that_say_their_exit():
    bodies = [said(0, exit_index=2), said(1, exit_index=2), said(2, exit_index=0), b""]
    outcomes = judged(
        latencies_ms=[1.0, 1.0, 1.0, 1.0], statuses=[200, 200, 200, 503], bodies=bodies
    )

    assert summary_of(outcomes).exit_shares == pytest.approx((1 / 3, 0, 2 / 3))
    assert outcomes.exits[3] == NOTHING


def test_the_servers_own_word_counts_over_all_arrivals():
    summary = summary_of(judged(latencies_ms=[1.0, 99.0, np.nan]))

    assert summary.own_attainment == pytest.approx(2 / 3)
    assert summary.attainment == pytest.approx(1 / 3)


def test_pairs_are_compared_arrival_by_arrival():
    ours = judged(latencies_ms=[1.0, 1.0, 1.0, 99.0])
    theirs = judged(latencies_ms=[1.0, 99.0, 99.0, 1.0])

    difference, error = paired_difference([ours], [theirs])

    assert difference == pytest.approx(0.25)
    assert error == pytest.approx(np.std([0, 1, 1, -1]) / 2)


def test_a_shorter_run_is_compared_on_what_it_had():
    ours, theirs = judged(latencies_ms=[1.0, 1.0, 1.0]), judged(latencies_ms=[1.0, 99.0])

    assert paired_difference([ours], [theirs])[0] == pytest.approx(0.5)


def test_runs_of_different_traces_have_no_pairs():
    ours = judged(latencies_ms=[1.0, 1.0])
    theirs = replace(ours, image_indices=ours.image_indices + 1)

    with pytest.raises(ValueError, match="different traces"):
        paired_difference([ours], [theirs])


def test_outcomes_are_read_back_as_they_were_written(tmp_path):
    outcomes = judged(latencies_ms=[1.0, np.nan])

    outcomes.write(tmp_path / "cell.npz")

    again = Outcomes.read(tmp_path / "cell.npz")
    assert again.deadline_ms == DEADLINE_MS
    assert again.is_useful.tolist() == outcomes.is_useful.tolist()


def test_a_recording_is_read_back_with_every_body_where_it_was(tmp_path):
    wire = recording(latencies_ms=[1.0, 1.0, 1.0], bodies=[b"one", b"", b"three"])

    wire.write(tmp_path / "recording.npz")

    assert Recording.read(tmp_path / "recording.npz").bodies == [b"one", b"", b"three"]
