import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.recipe import CosineSchedule, StepSchedule
from training.schedule import Extent, rate_factor

COSINE = CosineSchedule(kind="cosine", warm_up=0.2)
STEPS = StepSchedule(kind="steps", drops_at=(0.5, 0.75), factor=0.1)


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0.0, 1.0), (0.49, 1.0), (0.5, 0.1), (0.74, 0.1), (0.75, 0.01), (1.0, 0.01)],
)
def test_steps_drop_the_rate_at_their_shares(progress: float, factor: float):
    assert rate_factor(STEPS, progress) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0.0, 1e-3), (0.1, 0.5), (0.2, 1.0), (0.6, 0.5), (1.0, 0.0)],
)
def test_cosine_warms_up_and_falls_to_nothing(progress: float, factor: float):
    assert rate_factor(COSINE, progress) == pytest.approx(factor, abs=1e-12)


@given(warm_up=st.floats(0, 1), progress=st.floats(0, 1))
def test_a_rate_never_exceeds_its_peak(warm_up: float, progress: float):
    schedule = CosineSchedule(kind="cosine", warm_up=warm_up)

    assert 0 <= rate_factor(schedule, progress) <= 1


def test_a_run_is_measured_in_steps_or_in_seconds():
    assert Extent(steps=8, seconds=None).progress(step=2, elapsed_s=1e9) == 0.25
    assert Extent(steps=None, seconds=60.0).progress(step=10**9, elapsed_s=15.0) == 0.25
    assert Extent(steps=8, seconds=None).progress(step=9, elapsed_s=0.0) == 1


def test_a_run_without_an_end_is_refused():
    with pytest.raises(ValueError, match="steps or seconds"):
        Extent(steps=None, seconds=None).progress(step=0, elapsed_s=0.0)
