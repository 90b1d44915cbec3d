"""The training loop: stopped by a count of epochs, by the wall clock or by a signal, and resumable.

Start reading at `train`. What a step sees depends on the recipe's seed and the step's number alone,
so a resumed run meets the same batches, cropped the same way, as one that was never stopped.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm  # type: ignore[import-untyped]  # its stubs are a package of their own

from training.augment import CropAndFlip, normalised
from training.batch_norm import refresh_statistics
from training.checkpoint import Checkpoint
from training.data import Splits
from training.distributed import World
from training.exit_weights import exit_weights
from training.inference import holdout_accuracy
from training.losses import multi_exit_cross_entropy
from training.models.msdnet.network import MSDNet
from training.optimizers import build_optimizers, set_rates
from training.recipe import Recipe
from training.record import record_epoch
from training.schedule import Extent, rate_factor
from training.stopping import StopSignal, Stopwatch

_CHECKPOINT_EVERY_S = 60.0


@dataclass(slots=True)
class Run:
    """One training run's moving parts. Owned by the loop; `step` counts finished steps."""

    recipe: Recipe
    splits: Splits
    world: World
    folder: Path
    model: MSDNet
    forward: Callable[..., list[Tensor]]  # `model`, compiled where the recipe says so
    average: AveragedModel | None
    optimizers: list[torch.optim.Optimizer]
    step: int
    stopwatch: Stopwatch

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches an epoch; what is left over is seen in another epoch's order."""
        return len(self.splits.train.labels) // self.recipe.batch_size

    @property
    def network(self) -> nn.Module:
        """The network that will be kept."""
        return self.model if self.average is None else self.average.module

    def checkpoint(self) -> Checkpoint:
        """Return where the run stands."""
        return Checkpoint(
            recipe=self.recipe.model_dump(mode="json"),
            data_digest=self.splits.digest,
            num_classes=len(self.splits.class_names),
            class_names=list(self.splits.class_names),
            step=self.step,
            elapsed_s=self.stopwatch.elapsed_s(),
            model=self.model.state_dict(),
            average=None if self.average is None else self.average.module.state_dict(),
            optimizers=[o.state_dict() for o in self.optimizers],
        )


def train(recipe: Recipe, splits: Splits, world: World, folder: Path) -> Checkpoint:
    """Train a model, or go on training it where `folder` holds a checkpoint.

    Args:
        recipe: What to train and how.
        splits: The images; batches never meet the hold-out.
        world: The processes that share the work.
        folder: Where checkpoints and logs are written.

    Raises:
        ValueError: The checkpoint is another recipe's or was trained on other data.
    """
    run = _open_run(recipe, splits, world, folder)
    extent = _extent(recipe, run.steps_per_epoch)
    is_over = _is_over(run, extent)
    with StopSignal() as stop:
        # Epochs bind batches to their images; the schedule follows `extent` alone. A signal is
        # looked for inside an epoch only, where all processes agree on it.
        while not is_over:
            is_whole = _run_epoch(run, extent, stop)
            # Before the checkpoint is written: what it says of the clock must agree.
            is_over = _is_over(run, extent)
            if is_whole or is_over:
                _record(run)
            if world.is_first:
                run.checkpoint().write(folder)
            if not is_whole:
                break
    return run.checkpoint()


def _open_run(recipe: Recipe, splits: Splits, world: World, folder: Path) -> Run:
    torch.manual_seed(recipe.seed)
    shape = recipe.network.shape(len(splits.class_names))
    model = MSDNet(shape).to(world.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    average = None
    if recipe.ema_decay is not None:
        smooth = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]  # torch's
        average = AveragedModel(model, multi_avg_fn=smooth, use_buffers=True)
    optimizers = build_optimizers(model, recipe)
    forward = torch.compile(model) if recipe.compiled else model
    run = Run(recipe, splits, world, folder, model, forward, average, optimizers, 0, Stopwatch(0.0))
    if Checkpoint.exists(folder):
        _restore(run, Checkpoint.read(folder, world.device))
    return run


def _restore(run: Run, saved: Checkpoint) -> None:
    unlike = _differences(saved.recipe, run.recipe.model_dump(mode="json"))
    if unlike:
        raise ValueError(f"{run.folder} was begun with another recipe: {', '.join(unlike)}")
    if saved.data_digest != run.splits.digest:
        raise ValueError(f"{run.folder} was begun on other data: {saved.data_digest}")
    run.model.load_state_dict(saved.model)
    if run.average is not None and saved.average is not None:
        run.average.module.load_state_dict(saved.average)
        run.average.n_averaged.fill_(saved.step)
    for optimizer, state in zip(run.optimizers, saved.optimizers, strict=True):
        optimizer.load_state_dict(state)
    run.step = saved.step
    run.stopwatch = Stopwatch(saved.elapsed_s)


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    # How long to train may change: a run can be given more time after it was begun.
    free = {"epochs", "minutes", "compiled"}
    return [f"{k} was {before.get(k)!r}" for k in now if k not in free and before.get(k) != now[k]]


def _extent(recipe: Recipe, steps_per_epoch: int) -> Extent:
    if recipe.epochs is not None:
        return Extent(steps=recipe.epochs * steps_per_epoch, seconds=None)
    if recipe.minutes is None:
        raise ValueError("the recipe says neither epochs nor minutes")
    return Extent(steps=None, seconds=recipe.minutes * 60)


def _is_over(run: Run, extent: Extent) -> bool:
    clock = torch.tensor([run.stopwatch.elapsed_s()], dtype=torch.float64)
    elapsed_s = run.world.agree(clock.to(run.world.device)).item()
    return extent.progress(step=run.step, elapsed_s=elapsed_s) >= 1


def _run_epoch(run: Run, extent: Extent, stop: StopSignal) -> bool:
    """Train to the end of the current epoch; return whether it was reached."""
    recipe, train_set = run.recipe, run.splits.train
    epoch, first = divmod(run.step, run.steps_per_epoch)
    order = torch.randperm(len(train_set.labels), generator=_generator(recipe.seed, epoch))
    vary = CropAndFlip(
        num_images=len(train_set.labels),
        image_size=recipe.network.image_size,
        padding=recipe.data.padding,
        seed=recipe.seed,
    )
    learner = _Learner(run, vary)
    saved_at = time.monotonic()
    steps = range(first, run.steps_per_epoch)
    for index in tqdm(steps, f"epoch {epoch}", disable=not run.world.is_first, mininterval=10):
        clock = torch.tensor([run.stopwatch.elapsed_s(), float(stop.is_set)], dtype=torch.float64)
        elapsed_s, asked = run.world.agree(clock.to(run.world.device)).tolist()
        progress = extent.progress(step=run.step, elapsed_s=elapsed_s)
        if progress >= 1 or asked:
            return False
        batch = order[index * recipe.batch_size : (index + 1) * recipe.batch_size]
        learner.learn(run.world.part(batch), epoch=epoch, progress=progress)
        run.step += 1
        if run.world.is_first and time.monotonic() - saved_at > _CHECKPOINT_EVERY_S:
            run.checkpoint().write(run.folder)
            saved_at = time.monotonic()
    return True


class _Learner:
    """Takes single steps."""

    def __init__(self, run: Run, vary: CropAndFlip) -> None:
        self._run = run
        self._vary = vary
        device = run.world.device
        self._mean = torch.tensor(run.recipe.data.mean, device=device)
        self._std = torch.tensor(run.recipe.data.std, device=device)
        self._exit_weights = exit_weights(run.recipe.exit_weights, run.model.shape)

    def learn(self, indices: Tensor, *, epoch: int, progress: float) -> None:
        """Take one step on this process's part of a batch."""
        run, recipe, device = self._run, self._run.recipe, self._run.world.device
        draw = _generator(recipe.seed, run.step, run.world.rank)
        chosen = indices.to(device)
        pixels = self._vary(run.splits.train.fetch(chosen), chosen, epoch=epoch, draw=draw)
        inputs = normalised(pixels, self._mean, self._std)
        labels = run.splits.train.labels[chosen]
        set_rates(run.optimizers, rate_factor(recipe.schedule, progress))
        run.model.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = run.forward(inputs.contiguous(memory_format=torch.channels_last))
        loss = multi_exit_cross_entropy(
            logits, labels, self._exit_weights, label_smoothing=recipe.label_smoothing
        )
        for optimizer in run.optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        run.world.average(run.model)
        for optimizer in run.optimizers:
            optimizer.step()
        if run.average is not None:
            run.average.update_parameters(run.model)


def _generator(*numbers: int) -> torch.Generator:
    # Distinct streams for (seed, epoch) and (seed, step, rank): the sequence keeps them apart.
    mixed = np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))


def _record(run: Run) -> None:
    if run.average is not None:
        refresh_statistics(run.network, run.splits.train, run.recipe, run.world)
    accuracies = holdout_accuracy(run.network, run.splits.holdout, run.recipe, run.world)
    if run.world.is_first:
        record_epoch(
            run.folder,
            accuracies,
            epochs=run.step / run.steps_per_epoch,
            step=run.step,
            elapsed_s=run.stopwatch.elapsed_s(),
        )
