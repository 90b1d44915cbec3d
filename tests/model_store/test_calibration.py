import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store.calibration import TEMPERATURE_RANGE, Calibration, fit_temperatures
from model_store.confidence import max_softmax, probabilities

FIELDS = ("labels", "logits", "is_fitting", "temperatures")


def _loss(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    table = probabilities(logits, temperature)
    return float(-np.log(table[np.arange(len(labels)), labels]).mean())


def test_two_fifths_of_the_images_fit_temperatures(make_calibration: Callable[..., Calibration]):
    calibration = make_calibration(num_images=5000)

    assert calibration.is_fitting.sum() == 2000


def test_the_seed_alone_decides_the_split(make_calibration: Callable[..., Calibration]):
    table = make_calibration(num_images=50)
    again = Calibration.build(table.logits, table.labels, 3)
    same = Calibration.build(table.logits, table.labels, 3)
    other = Calibration.build(table.logits, table.labels, 4)

    assert np.array_equal(again.is_fitting, same.is_fitting)
    assert not np.array_equal(again.is_fitting, other.is_fitting)


def test_the_certifying_part_has_no_say_in_the_temperatures(
    make_calibration: Callable[..., Calibration],
):
    calibration = make_calibration(num_images=100)
    spoilt = np.array(calibration.logits)
    spoilt[~calibration.is_fitting] = 0

    fitted = fit_temperatures(spoilt, calibration.labels, calibration.is_fitting)

    assert np.array_equal(fitted, calibration.temperatures)


@given(seed=st.integers(0, 1000), scale=st.floats(0.5, 4))
def test_no_other_temperature_makes_the_labels_likelier(seed: int, scale: float):
    random = np.random.default_rng(seed)
    labels = random.integers(5, size=200)
    logits = random.normal(size=(200, 1, 5)) * scale
    logits[np.arange(200), :, labels] += scale
    everyone = np.ones(200, dtype=np.bool_)

    (fitted,) = fit_temperatures(logits, labels, everyone)

    best = _loss(logits[:, 0], labels, fitted)
    # The loss is flat at its bottom: below 1e-12 the difference is rounding.
    assert best <= min(_loss(logits[:, 0], labels, fitted * f) for f in (0.9, 0.99, 1.01, 1.1)) + (
        1e-12
    )


def test_overconfident_logits_get_the_temperature_they_were_sharpened_by():
    random = np.random.default_rng(1)
    honest = random.normal(size=(20_000, 4)) * 2
    chances = probabilities(honest, 1.0)
    labels = (chances.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    everyone = np.ones(20_000, dtype=np.bool_)

    fitted = fit_temperatures(np.stack([honest, 3 * honest], axis=1), labels, everyone)

    # 20 000 labels fix T to about 1 %.
    assert fitted == pytest.approx([1.0, 3.0], rel=0.05)
    assert fitted[1] == pytest.approx(3 * fitted[0], rel=1e-9)


@pytest.mark.parametrize(
    ("label", "bound"),
    [(0, TEMPERATURE_RANGE[0]), (1, TEMPERATURE_RANGE[1])],
    ids=["right", "wrong"],
)
def test_a_fit_without_a_peak_stops_at_the_end_of_the_range(label: int, bound: float):
    logits = np.tile([4.0, 0.0], (10, 1, 1))
    labels = np.full(10, label)

    fitted = fit_temperatures(logits, labels, np.ones(10, dtype=np.bool_))

    assert fitted == pytest.approx([bound], rel=1e-9)


def test_confidences_are_those_of_the_exits_at_their_temperatures(
    make_calibration: Callable[..., Calibration],
):
    calibration = make_calibration()

    confidences = calibration.confidences()

    assert confidences.dtype == np.float64
    for exit_index, temperature in enumerate(calibration.temperatures):
        expected = max_softmax(calibration.logits[:, exit_index], temperature)
        assert np.array_equal(confidences[:, exit_index], expected)


def test_an_exit_is_right_where_its_largest_logit_is_the_label():
    logits = np.array([[[1, 0], [0, 1]], [[1, 0], [1, 0]]], dtype=np.float16)
    calibration = Calibration(
        np.array([0, 1]), logits, np.array([True, False]), np.array([1.0, 1.0])
    )

    assert calibration.is_right().tolist() == [[True, False], [False, False]]


def test_a_file_gives_back_what_was_written(
    make_calibration: Callable[..., Calibration], tmp_path: Path
):
    calibration = make_calibration()
    path = tmp_path / "calibration.npz"

    calibration.write(path)
    again = Calibration.read(path)

    for name in FIELDS:
        assert np.array_equal(getattr(again, name), getattr(calibration, name))
        assert getattr(again, name).dtype == getattr(calibration, name).dtype


def test_equal_calibrations_are_equal_bytes(make_calibration: Callable[..., Calibration]):
    assert make_calibration(seed=5).to_bytes() == make_calibration(seed=5).to_bytes()


def test_numpy_reads_the_file_without_pickle(make_calibration: Callable[..., Calibration]):
    calibration = make_calibration()

    with np.load(io.BytesIO(calibration.to_bytes()), allow_pickle=False) as archive:
        assert sorted(archive.files) == sorted(FIELDS)
        assert np.array_equal(archive["logits"], calibration.logits)


def test_logits_beyond_float16_are_refused_when_built():
    logits = np.full((10, 1, 2), 1e6)

    with pytest.raises(ValueError, match="infinity"):
        Calibration.build(logits, np.zeros(10, dtype=np.int64), 0)


def test_logits_of_another_number_of_images_than_labels_are_refused_when_built():
    with pytest.raises(ValueError, match=r"labels has shape \(9,\): expected \(10,\)"):
        Calibration.build(np.zeros((10, 1, 2)), np.zeros(9, dtype=np.int64), 0)


@pytest.mark.parametrize(
    ("field", "array", "message"),
    [
        pytest.param("labels", np.zeros(20), "labels is float64", id="labels-type"),
        pytest.param("labels", np.zeros(19, np.int64), "labels has shape", id="labels-shape"),
        pytest.param(
            "labels", np.full(20, 3), "labels run from 3 to 3: expected 0 to 2", id="high"
        ),
        pytest.param("labels", np.full(20, -1), "labels run from -1", id="negative"),
        pytest.param("logits", np.zeros((20, 2, 3)), "logits is float64", id="logits-type"),
        pytest.param("logits", np.zeros((20, 3), np.float16), "three axes", id="logits-axes"),
        pytest.param("logits", np.zeros((20, 2, 1), np.float16), "nothing", id="one-class"),
        pytest.param("logits", np.zeros((0, 2, 3), np.float16), "nothing", id="no-image"),
        pytest.param("logits", np.full((20, 2, 3), np.nan, np.float16), "NaN", id="logits-nan"),
        pytest.param("is_fitting", np.zeros(20, np.int8), "is_fitting is int8", id="split-type"),
        pytest.param("is_fitting", np.ones(20, np.bool_), "20 of 20 images", id="all-fit"),
        pytest.param("is_fitting", np.zeros(20, np.bool_), "0 of 20 images", id="none-fits"),
        pytest.param("temperatures", np.ones(3), "temperatures has shape", id="temperatures-shape"),
        pytest.param("temperatures", np.array([1.0, 0.0]), "positive", id="temperature-zero"),
        pytest.param("temperatures", np.array([1.0, np.inf]), "finite", id="temperature-infinite"),
    ],
)
def test_an_array_that_cannot_be_is_refused(
    make_calibration: Callable[..., Calibration], field: str, array: NDArray[Any], message: str
):
    calibration = make_calibration()

    with pytest.raises(ValueError, match=message):
        dataclasses.replace(calibration, **{field: array})


def test_a_calibration_of_another_network_is_told(make_calibration: Callable[..., Calibration]):
    calibration = make_calibration()

    with pytest.raises(ValueError, match="2 exits and 3 classes: the manifest has 4 and 3"):
        calibration.check_fits(num_exits=4, num_classes=3)
