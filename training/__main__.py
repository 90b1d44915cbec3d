"""Composition root of training: `python -m training {train,calibrate,evaluate,export}`."""

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from model_store.catalog import Catalog
from model_store.errors import BundleError
from model_store.manifest import ImageInput
from model_store.reader import open_bundle
from training.budget_sweep import Sweep
from training.bundle_inference import run_bundle_over
from training.calibrate import calibrate, read_calibration, write_calibration
from training.command_line import Command, build_parser
from training.data import Splits, load_splits
from training.distributed import World
from training.evaluate import (
    EVALUATION_FILE,
    Evaluation,
    Subject,
    data_note,
    evaluate,
    read_evaluation,
)
from training.export import Description, export_bundle
from training.export_stages import ExportRefused
from training.inference import run_over
from training.provenance import provenance_of
from training.recipe import Recipe, load_recipe
from training.tables import calibration_table, evaluation_tables
from training.train import train
from training.trained import RunMismatch, TrainedNetwork


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        _ACTIONS[options.command](options)
    except (FileNotFoundError, RunMismatch, BundleError, ExportRefused) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _train(options: Namespace) -> None:
    recipe = load_recipe(options.recipe)
    if options.epochs is not None or options.minutes is not None:
        recipe = recipe.model_copy(update={"epochs": options.epochs, "minutes": options.minutes})
    world = World.join(options.device)
    try:
        train(recipe, _splits(recipe, options.data, world.device), world, options.output)
    finally:
        world.leave()


def _calibrate(options: Namespace) -> None:
    device = torch.device(options.device)
    trained, splits = _open_run(options.run, options.data, device)
    calibration = calibrate(trained, splits.holdout, device=device, seed=trained.recipe.seed)
    record = write_calibration(options.run, calibration, trained)
    sys.stdout.write(calibration_table(record.exits))


def _evaluate(options: Namespace) -> None:
    sweep = Sweep(options.budgets, options.window)
    evaluated = _evaluate_run if options.bundle is None else _evaluate_bundle
    evaluation = evaluated(options, sweep)
    sys.stdout.write(evaluation_tables(evaluation))
    path = options.json
    if path is None and options.run is not None:
        path = options.run / EVALUATION_FILE
    if path is not None:
        path.write_text(evaluation.model_dump_json(indent=2), encoding="utf-8")


def _evaluate_run(options: Namespace, sweep: Sweep) -> Evaluation:
    device = torch.device(options.device)
    trained, splits = _open_run(options.run, options.data, device)
    subject = Subject(
        recipe=trained.recipe.name,
        step=trained.step,
        data_digest=trained.data_digest,
        costs=trained.costs,
        calibration=read_calibration(options.run, trained),
    )
    return evaluate(
        subject,
        run_over(trained.network, splits.test, trained.recipe.data, device=device),
        splits.test.labels.cpu().numpy(),
        sweep=sweep,
        note=data_note(trained.recipe.data.dataset, options.data),
    )


def _evaluate_bundle(options: Namespace, sweep: Sweep) -> Evaluation:
    bundle = open_bundle(options.bundle)
    recipe = Recipe.model_validate(bundle.manifest.provenance.recipe)
    splits = _splits(recipe, options.data, torch.device("cpu"))
    subject = Subject(
        recipe=recipe.name,
        step=None,
        data_digest=splits.digest,
        costs=bundle.costs,
        calibration=bundle.calibration,
    )
    return evaluate(
        subject,
        run_bundle_over(bundle, splits.test),
        splits.test.labels.numpy(),
        sweep=sweep,
        note=data_note(recipe.data.dataset, options.data),
    )


def _export(options: Namespace) -> None:
    trained = TrainedNetwork.open(options.run)
    calibration = read_calibration(options.run, trained)
    if calibration is None:
        raise RunMismatch(f"{options.run} has no calibration: calibrate first")
    name = options.name or trained.recipe.name
    description = Description(
        name=name,
        version=options.version or _next_version(options.root, name),
        labels=trained.class_names,
        image_input=_image_input(trained.recipe),
        provenance=provenance_of(trained, read_evaluation(options.run, step=trained.step)),
    )
    bundle = export_bundle(
        trained.network,
        description,
        calibration=calibration,
        root=options.root,
        runtime="torchscript" if options.torchscript else "onnx",
    )
    sys.stdout.write(f"{bundle}\n")


def _next_version(root: Path, name: str) -> int:
    root.mkdir(parents=True, exist_ok=True)
    catalog = Catalog([root])
    return catalog.versions(name)[-1] + 1 if name in catalog.names() else 1


def _image_input(recipe: Recipe) -> ImageInput:
    size = recipe.network.image_size
    data = recipe.data
    return ImageInput(height=size, width=size, channels=3, mean=data.mean, std=data.std)


def _open_run(run: Path, data: Path, device: torch.device) -> tuple[TrainedNetwork, Splits]:
    trained = TrainedNetwork.open(run, device)
    splits = _splits(trained.recipe, data, device)
    trained.check_data(splits.digest)
    return trained, splits


def _splits(recipe: Recipe, root: Path, device: torch.device) -> Splits:
    return load_splits(
        recipe.data.dataset,
        root,
        holdout_images=recipe.data.holdout_images,
        image_size=recipe.network.image_size,
        seed=recipe.seed,
        device=device,
    )


_ACTIONS: Final[Mapping[Command, Callable[[Namespace], None]]] = {
    Command.TRAIN: _train,
    Command.CALIBRATE: _calibrate,
    Command.EVALUATE: _evaluate,
    Command.EXPORT: _export,
}


if __name__ == "__main__":
    sys.exit(main())
