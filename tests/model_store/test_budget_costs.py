import pytest

from model_store.costs import ExitCosts


def test_an_exit_costs_every_classifier_on_the_way_or_its_own_alone():
    costs = ExitCosts(trunk_macs=(10, 20, 30), classifier_macs=(1, 2, 3))

    assert costs.stage_macs == (11, 22, 33)
    assert costs.cumulative_macs == (11, 33, 66)
    assert costs.direct_macs == (11, 32, 63)
    assert costs.num_exits == 3
    assert costs.full_depth_macs(every_classifier=True) == 66
    assert costs.full_depth_macs(every_classifier=False) == 63


def test_costs_known_only_up_to_each_exit_have_free_classifiers():
    costs = ExitCosts.from_cumulative([10, 25, 45])

    assert costs.cumulative_macs == costs.direct_macs == (10, 25, 45)
    assert costs.stage_macs == costs.trunk_macs == (10, 15, 20)


@pytest.mark.parametrize(
    ("trunks", "classifiers"),
    [
        pytest.param((), (), id="no exit"),
        pytest.param((10, 20), (1,), id="a classifier missing"),
        pytest.param((10, 0), (1, 2), id="a trunk that costs nothing"),
        pytest.param((10, 20), (1, -2), id="a classifier that gives MACs back"),
    ],
)
def test_impossible_prices_are_refused(trunks: tuple[int, ...], classifiers: tuple[int, ...]):
    with pytest.raises(ValueError, match="classifiers"):
        ExitCosts(trunks, classifiers)


@pytest.mark.parametrize(
    "cumulative",
    [
        pytest.param([10, 10], id="two exits of one price"),
        pytest.param([10, 5], id="a later exit cheaper"),
        pytest.param([0, 5], id="a first exit for nothing"),
    ],
)
def test_cumulative_costs_must_rise_from_above_zero(cumulative: list[int]):
    with pytest.raises(ValueError, match="trunks must cost"):
        ExitCosts.from_cumulative(cumulative)
