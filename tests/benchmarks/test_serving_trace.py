import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.serving.trace import ArrivalProcess, Load, Trace, make_trace

NUM_IMAGES = 1000
BOTH = pytest.mark.parametrize("process", list(ArrivalProcess), ids=lambda p: p.value)


def trace_of(
    process: ArrivalProcess = ArrivalProcess.POISSON, *, seconds: float = 200.0, repeat: int = 0
) -> Trace:
    load = Load(process, rate_hz=500.0, seconds=seconds, repeat=repeat)
    return make_trace(load, num_images=NUM_IMAGES)


def counts_per_bin(trace: Trace, *, seconds: float, bin_s: float = 0.1) -> NDArray[np.int64]:
    return np.histogram(trace.scheduled_s, bins=round(seconds / bin_s), range=(0, seconds))[0]


@BOTH
def test_the_mean_rate_is_the_one_asked_for(process):
    trace = trace_of(process=process)

    # Bursts of a fifth of a second: over 200 s the rate's standard error is about 4 %.
    assert len(trace) / 200 == pytest.approx(500, rel=0.12)


@BOTH
def test_arrivals_ascend_and_lie_within_the_run(process):
    scheduled_s = trace_of(process=process).scheduled_s

    assert (np.diff(scheduled_s) >= 0).all()
    assert scheduled_s[0] >= 0
    assert scheduled_s[-1] < 200


def test_gaps_of_a_poisson_process_are_exponential():
    gaps_s = np.diff(trace_of().scheduled_s)

    # An exponential distribution's standard deviation is its mean; 100 000 gaps know it to 1 %.
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.02)


def test_counts_of_bursts_vary_far_more_than_a_poisson_process_would():
    steady = counts_per_bin(trace_of(), seconds=200)
    bursty = counts_per_bin(trace_of(process=ArrivalProcess.BURSTY), seconds=200)

    assert steady.var() / steady.mean() == pytest.approx(1, abs=0.15)
    assert bursty.var() / bursty.mean() > 5


def test_the_same_load_is_the_same_trace_and_another_repeat_is_another():
    first, again, other = trace_of(), trace_of(), trace_of(repeat=1)

    assert np.array_equal(first.scheduled_s, again.scheduled_s)
    assert np.array_equal(first.image_indices, again.image_indices)
    assert not np.array_equal(first.image_indices[:100], other.image_indices[:100])


def test_every_image_comes_equally_often_give_or_take_one():
    counts = np.bincount(trace_of(seconds=21).image_indices, minlength=NUM_IMAGES)

    assert counts.max() - counts.min() <= 1


def test_the_beginning_of_a_trace_is_what_comes_before_an_instant():
    trace = trace_of(seconds=10)

    beginning = trace.until(4.0)

    assert beginning.scheduled_s[-1] < 4 <= trace.scheduled_s[len(beginning)]
    assert np.array_equal(beginning.image_indices, trace.image_indices[: len(beginning)])


def test_a_stored_trace_is_read_back(tmp_path):
    trace = trace_of(seconds=1)

    trace.write(tmp_path / "trace.npz")

    read = Trace.read(tmp_path / "trace.npz")
    assert np.array_equal(read.scheduled_s, trace.scheduled_s)
    assert np.array_equal(read.image_indices, trace.image_indices)
