from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.calibrate import CalibrationRecord, calibrate, read_calibration, write_calibration
from training.data import Splits
from training.distributed import World
from training.inference import run_over
from training.recipe import Recipe
from training.tables import calibration_table
from training.train import train
from training.trained import RunMismatch, TrainedNetwork

CPU = torch.device("cpu")


@pytest.fixture
def trained(tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path) -> TrainedNetwork:
    train(tiny_recipe, tiny_splits, World(rank=0, size=1, device=CPU), tmp_path)
    return TrainedNetwork.open(tmp_path)


def test_a_run_is_opened_with_the_averaged_weights_of_its_checkpoint(
    trained: TrainedNetwork, tiny_recipe: Recipe, tmp_path: Path
):
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)

    opened = trained.network.state_dict()

    assert trained.recipe == tiny_recipe
    assert trained.class_names == ("dark", "grey", "bright")
    assert trained.step == 6
    assert all(torch.equal(opened[key], value) for key, value in saved["average"].items())
    assert not trained.network.training
    assert trained.costs.num_exits == 2


def test_a_calibration_holds_the_logits_of_the_held_out_images_as_they_are(
    trained: TrainedNetwork, tiny_splits: Splits
):
    calibration = calibrate(trained, tiny_splits.holdout, device=CPU, seed=0)

    logits = run_over(trained.network, tiny_splits.holdout, trained.recipe.data, device=CPU)
    assert np.array_equal(calibration.logits, logits.astype(np.float16))
    assert np.array_equal(calibration.labels, tiny_splits.holdout.labels.numpy())
    assert calibration.is_fitting.sum() == 8
    assert calibration.temperatures.shape == (2,)


def test_a_calibration_is_read_back_for_the_weights_it_belongs_to(
    trained: TrainedNetwork, tiny_splits: Splits, tmp_path: Path
):
    calibration = calibrate(trained, tiny_splits.holdout, device=CPU, seed=0)

    record = write_calibration(tmp_path, calibration, trained)

    read = read_calibration(tmp_path, trained)
    assert read is not None
    assert read.to_bytes() == calibration.to_bytes()
    assert [e.after.temperature for e in record.exits] == calibration.temperatures.tolist()
    text = (tmp_path / "calibration.json").read_text(encoding="utf-8")
    assert CalibrationRecord.model_validate_json(text) == record


def test_a_calibration_of_earlier_weights_is_refused(
    trained: TrainedNetwork, tiny_splits: Splits, tmp_path: Path
):
    calibration = calibrate(trained, tiny_splits.holdout, device=CPU, seed=0)
    write_calibration(tmp_path, calibration, trained)

    with pytest.raises(RunMismatch, match="after step 6, its network is at step 9"):
        read_calibration(tmp_path, replace(trained, step=9))


def test_a_run_may_have_no_calibration(trained: TrainedNetwork, tmp_path: Path):
    assert read_calibration(tmp_path, trained) is None


def test_other_data_than_those_trained_on_are_refused(trained: TrainedNetwork):
    trained.check_data("0" * 64)

    with pytest.raises(RunMismatch, match="these are 1111"):
        trained.check_data("1" * 64)


def test_temperatures_are_judged_on_images_they_were_not_fitted_on(
    trained: TrainedNetwork, tiny_splits: Splits, tmp_path: Path
):
    calibration = calibrate(trained, tiny_splits.holdout, device=CPU, seed=0)
    others = calibration.logits.copy()
    others[calibration.is_fitting] = 0
    changed = replace(calibration, logits=others)

    one, same = (write_calibration(tmp_path, c, trained) for c in (calibration, changed))

    assert one.exits == same.exits
    assert len(calibration_table(one.exits).splitlines()) == 2 + 2
