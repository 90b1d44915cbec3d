import numpy as np
import pytest

from service.engine.cushion import Cushion

WANTED = 0.003  # share of those admitted that may have no answer in time


def tell(cushion: Cushion, *, is_answered: bool, num: int = 1) -> None:
    for _ in range(num):
        cushion.heard(is_answered=is_answered)


def test_nothing_is_kept_free_before_anybody_failed():
    cushion = Cushion()

    tell(cushion, is_answered=True, num=1000)

    assert cushion.part == 0.0


def test_cushion_grows_with_each_who_had_no_answer():
    cushion = Cushion()

    tell(cushion, is_answered=False)
    first = cushion.part
    tell(cushion, is_answered=False)

    assert 0.0 < first < cushion.part


def test_cushion_shrinks_slowly_while_all_have_answers():
    cushion = Cushion()
    tell(cushion, is_answered=False)
    grown = cushion.part

    tell(cushion, is_answered=True)
    after_one = cushion.part
    tell(cushion, is_answered=True, num=1000)

    assert 0.99 * grown < after_one < grown
    assert cushion.part == 0.0


def test_cushion_never_takes_more_than_half_a_deadline():
    cushion = Cushion()

    tell(cushion, is_answered=False, num=1000)

    assert cushion.part == 0.5


@pytest.mark.parametrize("spread", [0.03, 0.08])
def test_cushion_settles_where_the_wanted_share_fails(spread):
    """Each takes longer than expected by a chance part of his deadline, more than is kept fails."""
    cushion, chance = Cushion(), np.random.default_rng(1)
    parts, failures = [], []

    for _ in range(60_000):
        is_answered = chance.exponential(spread) <= cushion.part
        cushion.heard(is_answered=is_answered)
        parts.append(cushion.part)
        failures.append(not is_answered)

    # Of an exponential delay the share e^(-part / spread) takes longer.
    settled = float(np.mean(parts[10_000:]))
    assert np.mean(failures[10_000:]) == pytest.approx(WANTED, rel=0.2)
    assert settled == pytest.approx(-spread * np.log(WANTED), rel=0.25)
