import pickle  # noqa: TID251 - torch refuses code with its error
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from training.checkpoint import Checkpoint

SAVED = Checkpoint(
    recipe={"name": "tiny"},
    data_digest="0" * 64,
    num_classes=2,
    class_names=["cat", "dog"],
    step=7,
    elapsed_s=1.5,
    model={"weight": torch.tensor([1.0, 2.0])},
    average=None,
    optimizers=[{"state": {0: {"momentum": torch.tensor([3.0])}}}],
)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path):
    SAVED.write(tmp_path / "new" / "run")

    read = Checkpoint.read(tmp_path / "new" / "run")

    assert torch.equal(read.model["weight"], SAVED.model["weight"])
    assert torch.equal(read.optimizers[0]["state"][0]["momentum"], torch.tensor([3.0]))
    assert (read.step, read.elapsed_s, read.class_names) == (7, 1.5, ["cat", "dog"])


def test_a_checkpoint_replaces_the_one_before_it(tmp_path: Path):
    SAVED.write(tmp_path)

    replace(SAVED, step=8).write(tmp_path)

    assert Checkpoint.read(tmp_path).step == 8
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_an_interrupted_write_leaves_the_checkpoint_before_it(tmp_path: Path):
    SAVED.write(tmp_path)
    breaks_off = replace(SAVED, step=8, optimizers=[{"unwritable": lambda: None}])

    with pytest.raises((pickle.PicklingError, AttributeError)):
        breaks_off.write(tmp_path)

    assert Checkpoint.read(tmp_path).step == 7


def test_a_checkpoint_that_holds_more_than_data_is_refused(tmp_path: Path):
    replace(SAVED, recipe={"minutes": timedelta(minutes=1)}).write(tmp_path)

    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        Checkpoint.read(tmp_path)


def test_a_run_without_a_checkpoint_is_refused_by_name(tmp_path: Path):
    assert not Checkpoint.exists(tmp_path)

    with pytest.raises(FileNotFoundError, match="train first"):
        Checkpoint.read(tmp_path)


def test_the_weights_to_use_are_the_averages_where_there_is_one():
    average = {"weight": torch.tensor([9.0])}

    assert SAVED.weights is SAVED.model
    assert replace(SAVED, average=average).weights is average
