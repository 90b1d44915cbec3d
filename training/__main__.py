"""Composition root of training: `python -m training {train,evaluate,calibrate,export}`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from training.data import Splits, load_splits
from training.distributed import World
from training.recipe import Recipe, load_recipe
from training.train import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    command = options.command
    return int(command(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True)
    learn = commands.add_parser("train", help="train a model, or go on where a run was stopped")
    learn.add_argument("recipe", help="name of a bundled recipe, or a .toml file")
    learn.add_argument("--data", type=Path, default=Path("data"), help="folder of the data set")
    learn.add_argument("--output", type=Path, required=True, help="folder for checkpoint and logs")
    extent = learn.add_mutually_exclusive_group()
    extent.add_argument("--epochs", type=int, help="instead of the recipe's extent")
    extent.add_argument(
        "--minutes", type=float, help="of wall clock, instead of the recipe's extent"
    )
    learn.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    learn.set_defaults(command=_train)
    return parser


def _train(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe)
    if options.epochs is not None or options.minutes is not None:
        recipe = recipe.model_copy(update={"epochs": options.epochs, "minutes": options.minutes})
    world = World.join(options.device)
    try:
        train(recipe, _splits(recipe, options.data, world.device), world, options.output)
    finally:
        world.leave()
    return 0


def _splits(recipe: Recipe, root: Path, device: torch.device) -> Splits:
    return load_splits(
        recipe.data.dataset,
        root,
        holdout_images=recipe.data.holdout_images,
        image_size=recipe.network.image_size,
        seed=recipe.seed,
        device=device,
    )


if __name__ == "__main__":
    sys.exit(main())
