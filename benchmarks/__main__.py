"""Runs the benchmarks one after another and writes what they print to `benchmarks/results/`.

`python -m benchmarks [--data DATA]`; each is also a command of its own, `python -m
benchmarks.http_ceiling` say. With CIFAR-10 in DATA the overheads are measured on real images, and
accuracy over HTTP is held against an offline replay; without it the former run on noise and the
latter is left out. Takes some minutes; nothing else should run meanwhile. Exit status 1 if a
benchmark finds its bar missed.

Commands of their own, because each takes long or answers a question of its own: `python -m
benchmarks.serving --data DATA` (servers under more and more load, about fifty minutes), `python -m
benchmarks.serving.large --data DATA` (the same at 224×224), `python -m benchmarks.soak` and
`python -m benchmarks.overheads.lanes --images FILE`.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.machine import described, processor, slug
from benchmarks.serving.images import IMAGES_FILE

_RESULTS: Final = Path(__file__).parent / "results"
_BUNDLE: Final = Path("model_store/bundles/cifar10-msdnet/1")

Command = Sequence[str]  # a module and its arguments


def main() -> int:
    """Run all benchmarks one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that holds CIFAR-10")
    data: Path | None = parser.parse_args().data
    with TemporaryDirectory() as folder:
        images = None if data is None else Path(folder) / IMAGES_FILE
        if data is not None and images is not None:
            _read_images(data, images)
        # Results tell what was run, not where this machine keeps its files.
        names = {str(data): "DATA", str(images): "IMAGES"}
        parts, statuses = [_heading()], []
        for command in _commands(data, images):
            done = _run(command)
            statuses.append(done.returncode)
            parts.append(_section(command, done, names))
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{slug(processor())}.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    sys.stdout.write(f"written to {path}\n")
    return 1 if any(statuses) else 0


def _commands(data: Path | None, images: Path | None) -> Iterator[Command]:
    """Yield what runs, in order.

    Args:
        data: Folder that holds CIFAR-10; None: there is none.
        images: Its test images, of `read_images`; None likewise.
    """
    yield ["benchmarks.budget_solver"]
    for num_threads in ("1", "2"):
        yield ["benchmarks.stage_layout", "--bundle", str(_BUNDLE), "--threads", num_threads]
    yield ["benchmarks.decision_cost"]
    yield ["benchmarks.overheads", *(() if images is None else ("--images", str(images)))]
    yield ["benchmarks.http_ceiling"]
    if data is not None:
        yield ["benchmarks.batch_accuracy", "--data", str(data)]


def _read_images(data: Path, images: Path) -> None:
    reading = ["benchmarks.serving.read_images", "--data", str(data), "--output", str(images)]
    subprocess.run([sys.executable, "-m", *reading], check=True)  # noqa: S603 - this interpreter


def _run(command: Command) -> subprocess.CompletedProcess[str]:
    sys.stdout.write(f"\n## {command[0]}\n\n")
    sys.stdout.flush()
    done = subprocess.run(  # noqa: S603 - this interpreter, on modules named here
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=False
    )
    sys.stdout.write(done.stdout)
    return done


def _section(
    command: Command, done: subprocess.CompletedProcess[str], names: Mapping[str, str]
) -> str:
    shown = " ".join(names.get(word, word) for word in command)
    verdict = "" if done.returncode == 0 else f"\nExit status {done.returncode}.\n"
    return f"## `python -m {shown}`\n\n{done.stdout}{verdict}"


def _heading() -> str:
    about = described(("onnxruntime", "torch", "numpy", "uvicorn", "uvloop"))
    return f"# Benchmarks\n\n{about}A shared machine: only ratios mean anything.\n"


if __name__ == "__main__":
    sys.exit(main())
