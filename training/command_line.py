"""What `python -m training` can be asked for; `__main__` carries it out."""

import argparse
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Final

from training.budget_sweep import DEFAULT_BUDGETS, DEFAULT_WINDOW

_DESCRIPTION: Final = """\
From images to a bundle that the server can open, in four steps:

  python -m training train cifar10_7exits_cpu --data data --output runs/mine
  python -m training calibrate --run runs/mine --data data
  python -m training evaluate --run runs/mine --data data
  python -m training export --run runs/mine --root model_store/bundles

Several processes train one model under torchrun:

  torchrun --nproc-per-node 2 -m training train ..."""


class Command(Enum):
    """The steps from images to a bundle."""

    TRAIN = "train"
    CALIBRATE = "calibrate"
    EVALUATE = "evaluate"
    EXPORT = "export"


def build_parser() -> ArgumentParser:
    """Return the parser; what it parses has a `command`, and that command's own options."""
    parser = ArgumentParser(
        prog="python -m training",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for command, describe in _DESCRIBED_BY.items():
        own = commands.add_parser(command.value, help=_SUMMARIES[command])
        describe(own)
        own.set_defaults(command=command)
    return parser


def _describe_train(parser: ArgumentParser) -> None:
    parser.description = (
        "Train a model, or go on where a run was stopped: by Ctrl-C, by SIGTERM, or by the "
        "machine. The run's folder gets checkpoint.pt, log.csv and events for TensorBoard."
    )
    parser.add_argument("recipe", help="name of a bundled recipe, or a .toml file")
    _add_data(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--epochs", type=int, help="instead of the recipe's extent")
    extent.add_argument("--minutes", type=float, help="of wall clock, instead of the recipe's")
    _add_device(parser)


def _describe_calibrate(parser: ArgumentParser) -> None:
    parser.description = (
        "Run the held-out images through every exit, fit a temperature for each on a part of "
        "them, and print what it does to the rest. Writes calibration.npz and calibration.json "
        "into the run's folder. To be done again after more training."
    )
    _add_run(parser)
    _add_data(parser)
    _add_device(parser)


def _describe_evaluate(parser: ArgumentParser) -> None:
    parser.description = (
        "Print accuracy, likelihood and calibration error of every exit on the test images and, "
        "once calibrated, the accuracy under budgets as the server would keep them, in Markdown. "
        "Writes evaluation.json into the run's folder, from where export takes it along."
    )
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--run", type=Path, help="folder of a run")
    subject.add_argument("--bundle", type=Path, help="folder of a bundle, .../NAME/VERSION")
    _add_data(parser)
    _add_device(parser)
    parser.add_argument("--json", type=Path, help="file for the results, instead")
    parser.add_argument(
        "--budgets",
        type=int,
        default=DEFAULT_BUDGETS,
        help="how many, from the first exit's price to the last's (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=DEFAULT_WINDOW,
        help="images that the server decides together (default: %(default)s)",
    )


def _describe_export(parser: ArgumentParser) -> None:
    parser.description = (
        "Write a calibrated run as a bundle, checked to compute what the trained network does. "
        "What was evaluated is noted in it. A bundle never changes: each export is a new version."
    )
    _add_run(parser)
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("model_store/bundles"),
        help="folder of bundles; the new one is ROOT/NAME/VERSION (default: %(default)s)",
    )
    parser.add_argument("--name", help="of the model (default: the recipe's)")
    parser.add_argument("--version", type=int, help="default: one more than there is")
    parser.add_argument(
        "--torchscript",
        action="store_true",
        help="archives in place of ONNX graphs: code, which a server opens only if told to",
    )


def _add_run(parser: ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")


def _add_data(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        help="folder of the data set; where CIFAR is not in it, it is downloaded "
        "(default: %(default)s)",
    )


def _add_device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")


_SUMMARIES: Final[Mapping[Command, str]] = {
    Command.TRAIN: "train a model, or go on where a run was stopped",
    Command.CALIBRATE: "fit temperatures on the images that were held out",
    Command.EVALUATE: "measure a run or a bundle on the test images",
    Command.EXPORT: "write a calibrated run as a bundle",
}
_DESCRIBED_BY: Final[Mapping[Command, Callable[[ArgumentParser], None]]] = {
    Command.TRAIN: _describe_train,
    Command.CALIBRATE: _describe_calibrate,
    Command.EVALUATE: _describe_evaluate,
    Command.EXPORT: _describe_export,
}
