import pytest

from service.engine.going_rate import GoingRate

EVERY_S = 0.002  # between two first answers
EARLY, IN_GOOD_TIME, LATE = 0.1, 0.3, 0.9  # parts of their deadlines


@pytest.fixture
def hear():
    """Tells a rate of first answers one after another, and returns the instant of the last."""

    def tell(rate: GoingRate, part: float, *, num: int, now: float) -> float:
        for _ in range(num):
            now += EVERY_S
            rate.heard(part, now)
        return now

    return tell


def test_lane_time_costs_nothing_before_anybody_came():
    assert GoingRate().price(1.0) == 0.0


def test_lane_time_costs_nothing_while_first_answers_come_early(hear):
    rate = GoingRate()

    now = hear(rate, EARLY, num=500, now=0.0)

    assert rate.price(now) == 0.0


def test_price_rises_while_first_answers_come_late(hear):
    rate = GoingRate()

    now = hear(rate, LATE, num=60, now=0.0)
    before = rate.price(now)
    now = hear(rate, LATE, num=10, now=now)

    assert 0.0 < before < rate.price(now)


def test_one_late_answer_among_early_ones_costs_nobody_anything(hear):
    rate = GoingRate()

    now = hear(rate, EARLY, num=100, now=0.0)
    now = hear(rate, LATE, num=1, now=now)
    now = hear(rate, EARLY, num=10, now=now)

    assert rate.price(now) == 0.0


def test_price_falls_to_nothing_once_first_answers_come_early_again(hear):
    rate = GoingRate()
    now = hear(rate, LATE, num=200, now=0.0)
    high = rate.price(now)

    now = hear(rate, EARLY, num=100, now=now)
    lower = rate.price(now)
    now = hear(rate, EARLY, num=1000, now=now)

    assert high > lower
    assert rate.price(now) == 0.0


def test_price_stays_where_it_is_while_first_answers_come_in_good_time(hear):
    rate = GoingRate()
    now = hear(rate, LATE, num=60, now=0.0)
    # Until those that came late are forgotten.
    now = hear(rate, IN_GOOD_TIME, num=400, now=now)
    before = rate.price(now)

    now = hear(rate, IN_GOOD_TIME, num=100, now=now)

    assert rate.price(now) == pytest.approx(before, rel=0.01)


def test_price_is_forgotten_where_nobody_came_for_a_while(hear):
    rate = GoingRate()
    now = hear(rate, LATE, num=200, now=0.0)
    high = rate.price(now)

    assert high > 0.0
    assert rate.price(now + 1.0) == 0.0
    hear(rate, EARLY, num=1, now=now + 1.0)
    assert rate.price(now + 1.01) == 0.0


@pytest.mark.parametrize("part", [1.0, 50.0])
def test_price_has_an_upper_bound_from_which_it_comes_down(hear, part):
    rate = GoingRate()

    now = hear(rate, part, num=5000, now=0.0)
    highest = rate.price(now)
    now = hear(rate, EARLY, num=1000, now=now)

    assert highest == pytest.approx(1000.0)
    assert rate.price(now) == 0.0


def test_price_depends_on_time_and_not_on_how_often_it_is_asked(hear):
    often, seldom = GoingRate(), GoingRate()
    now = hear(often, LATE, num=60, now=0.0)
    hear(seldom, LATE, num=60, now=0.0)

    for step in range(1, 11):
        often.price(now + 0.001 * step)

    assert often.price(now + 0.01) == pytest.approx(seldom.price(now + 0.01))
