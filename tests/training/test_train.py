import csv
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.checkpoint import Checkpoint
from training.data import ImageSet, Splits
from training.distributed import World
from training.inference import holdout_accuracy, run_over
from training.recipe import Recipe
from training.train import train

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@dataclass
class Disturbed:
    """Images whose n-th batch comes with a disturbance."""

    images: ImageSet
    fetches_left: int
    disturb: Callable[[], None]
    fetched: list[Tensor] = field(default_factory=list)

    @property
    def labels(self) -> Tensor:
        return self.images.labels

    def fetch(self, indices: Tensor) -> Tensor:
        self.fetches_left -= 1
        if self.fetches_left == 0:
            self.disturb()
        self.fetched.append(indices)
        return self.images.fetch(indices)


class PowerCut(Exception):
    """The process ends in the middle of a step."""


def cut_power() -> None:
    raise PowerCut


def ask_to_stop() -> None:
    signal.raise_signal(signal.SIGTERM)


def tensors_of(checkpoint: Checkpoint) -> list[Tensor]:
    momenta = [
        state[key]
        for optimizer in checkpoint.optimizers
        for state in optimizer["state"].values()
        for key in ("momentum", "momentum_buffer")
        if key in state
    ]
    assert checkpoint.average is not None
    return [*checkpoint.model.values(), *checkpoint.average.values(), *momenta]


def assert_same_run(one: Checkpoint, other: Checkpoint) -> None:
    pairs = list(zip(tensors_of(one), tensors_of(other), strict=True))
    assert one.step == other.step
    assert pairs
    assert all(torch.equal(a, b) for a, b in pairs)


def log_rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# An epoch is three batches, and between two epochs three more refresh the average's statistics.
@pytest.mark.parametrize(("fetch", "step"), [(2, 2), (7, 4), (8, 5)])
def test_a_run_stopped_by_a_signal_goes_on_as_if_it_had_not_been(
    tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path, fetch: int, step: int
):
    whole = train(tiny_recipe, tiny_splits, ALONE, tmp_path / "whole")
    stopping = replace(tiny_splits, train=Disturbed(tiny_splits.train, fetch, ask_to_stop))
    stopped = train(tiny_recipe, stopping, ALONE, tmp_path / "stopped")

    resumed = train(tiny_recipe, tiny_splits, ALONE, tmp_path / "stopped")

    assert stopped.step == step
    assert resumed.step == 6
    assert_same_run(resumed, whole)


def test_a_run_that_broke_off_goes_on_from_its_last_checkpoint(
    tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path
):
    whole = train(tiny_recipe, tiny_splits, ALONE, tmp_path / "whole")
    breaking = replace(tiny_splits, train=Disturbed(tiny_splits.train, 8, cut_power))
    with pytest.raises(PowerCut):
        train(tiny_recipe, breaking, ALONE, tmp_path / "broken")

    resumed = train(tiny_recipe, tiny_splits, ALONE, tmp_path / "broken")

    assert_same_run(resumed, whole)
    assert_same_run(resumed, Checkpoint.read(tmp_path / "broken"))


def test_signals_mean_again_what_they_meant_before_the_training(
    tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path
):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    train(tiny_recipe, tiny_splits, ALONE, tmp_path)

    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_an_epoch_shows_each_image_once(tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path):
    watched = Disturbed(tiny_splits.train, 0, cut_power)

    train(tiny_recipe, replace(tiny_splits, train=watched), ALONE, tmp_path)

    first, second = torch.cat(watched.fetched[:3]), torch.cat(watched.fetched[6:9])
    assert torch.equal(first.sort().values, torch.arange(60))
    assert torch.equal(second.sort().values, torch.arange(60))
    assert not torch.equal(first, second)


def test_a_finished_run_is_left_as_it_is(tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path):
    first = train(tiny_recipe, tiny_splits, ALONE, tmp_path)
    written = (tmp_path / "checkpoint.pt").read_bytes()

    again = train(tiny_recipe, tiny_splits, ALONE, tmp_path)

    assert_same_run(again, first)
    assert (tmp_path / "checkpoint.pt").read_bytes() == written


def test_a_run_can_be_given_more_epochs(tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path):
    train(tiny_recipe, tiny_splits, ALONE, tmp_path)

    longer = train(tiny_recipe.model_copy(update={"epochs": 3}), tiny_splits, ALONE, tmp_path)

    assert longer.step == 9
    assert [row["epochs"] for row in log_rows(tmp_path)] == ["1.000", "2.000", "3.000"]


def test_a_run_stops_when_its_minutes_are_over(
    tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path
):
    timed = tiny_recipe.model_copy(update={"epochs": None, "minutes": 0.5 / 60})

    stopped = train(timed, tiny_splits, ALONE, tmp_path)

    again = train(timed, tiny_splits, ALONE, tmp_path)
    assert stopped.elapsed_s >= 0.5
    assert again.step == stopped.step
    assert log_rows(tmp_path)[-1]["step"] == f"{stopped.step}"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"seed": 1}, "another recipe: seed was 0", id="seed"),
        pytest.param({"batch_size": 10}, "another recipe: batch_size was 20", id="batch-size"),
        pytest.param({"name": "x", "ema_decay": None}, "name was 'tiny', ema_decay", id="two"),
    ],
)
def test_a_run_does_not_go_on_under_another_recipe(
    tiny_recipe: Recipe,
    tiny_splits: Splits,
    tmp_path: Path,
    change: dict[str, object],
    complaint: str,
):
    train(tiny_recipe.model_copy(update={"epochs": 1}), tiny_splits, ALONE, tmp_path)

    with pytest.raises(ValueError, match=complaint):
        train(tiny_recipe.model_copy(update=change), tiny_splits, ALONE, tmp_path)


def test_a_run_does_not_go_on_with_other_data(
    tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path
):
    train(tiny_recipe.model_copy(update={"epochs": 1}), tiny_splits, ALONE, tmp_path)

    with pytest.raises(ValueError, match="other data"):
        train(tiny_recipe, replace(tiny_splits, digest="1" * 64), ALONE, tmp_path)


def test_every_epoch_leaves_a_row_and_a_point_on_the_board(
    tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path
):
    train(tiny_recipe, tiny_splits, ALONE, tmp_path)

    rows = log_rows(tmp_path)
    assert [row["step"] for row in rows] == ["3", "6"]
    assert all(0 <= float(row[f"holdout_accuracy_{k}"]) <= 1 for row in rows for k in (0, 1))
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_network_learns_to_tell_bright_from_dark(
    tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path
):
    recipe = tiny_recipe.model_copy(
        update={"epochs": 12, "ema_decay": None, "exit_weights": (1.0, 0.5)}
    )

    train(recipe, tiny_splits, ALONE, tmp_path)

    last = log_rows(tmp_path)[-1]
    # A third is chance; brightness alone tells the three classes apart.
    assert min(float(last["holdout_accuracy_0"]), float(last["holdout_accuracy_1"])) > 0.6


def test_training_in_half_precision_under_compilation_off_takes_steps(
    tiny_recipe: Recipe, tiny_splits: Splits, tmp_path: Path
):
    recipe = tiny_recipe.model_copy(update={"bf16": True, "epochs": 1})

    reached = train(recipe, tiny_splits, ALONE, tmp_path)

    assert reached.step == 3
    assert all(torch.isfinite(t).all() for t in reached.weights.values())


def test_holdout_accuracy_is_the_share_of_right_answers_exit_by_exit(
    tiny_recipe: Recipe, tiny_splits: Splits
):
    labels = tiny_splits.holdout.labels

    class Oracle(torch.nn.Module):
        """Knows the answers of batches of seven at exit 0; says 'dark' at exit 1."""

        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def forward(self, inputs: Tensor) -> list[Tensor]:
            truth = labels[self.seen : self.seen + len(inputs)]
            self.seen += len(inputs)
            dark = torch.zeros(len(inputs), dtype=torch.int64)
            return [torch.nn.functional.one_hot(y, 3).float() for y in (truth, dark)]

    accuracies = holdout_accuracy(Oracle(), tiny_splits.holdout, tiny_recipe, ALONE, batch_size=7)

    assert accuracies[0] == 1
    assert accuracies[1] == pytest.approx((labels == 0).float().mean().item())


def test_a_network_run_over_a_set_gives_logits_by_image_exit_and_class(
    tiny_recipe: Recipe, tiny_splits: Splits
):
    class Brightness(torch.nn.Module):
        def forward(self, inputs: Tensor) -> list[Tensor]:
            mean = inputs.mean(dim=(1, 2, 3))
            return [torch.stack([mean, -mean], dim=1), torch.stack([-mean, mean], dim=1)]

    every = run_over(
        Brightness(), tiny_splits.test, tiny_recipe.data, device=ALONE.device, batch_size=7
    )

    assert every.shape == (30, 2, 2)
    pixels = tiny_splits.test.fetch(torch.arange(30)).float()
    brightness = (pixels / 255 - 0.5).mean(dim=(1, 2, 3)) / 0.25
    torch.testing.assert_close(torch.from_numpy(every[:, 0, 0]), brightness)
    torch.testing.assert_close(torch.from_numpy(every[:, 1, 0]), -brightness)
