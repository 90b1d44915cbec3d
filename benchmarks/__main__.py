"""Runs every benchmark and writes what they print to `benchmarks/results/`, with the hardware.

`python -m benchmarks [--data DATA]`; each is also a command of its own, `python -m
benchmarks.overhead` say. `batch_accuracy` needs CIFAR-10 in DATA and is left out without it. Takes
some minutes; nothing else should run meanwhile. Exit status 1 if a benchmark finds its bar missed.
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_RESULTS = Path(__file__).parent / "results"
_BUNDLE = Path("model_store/bundles/cifar10-msdnet/1")


def main() -> int:
    """Run all benchmarks one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that holds CIFAR-10")
    options = parser.parse_args()
    commands = [
        ["benchmarks.budget_solver"],
        ["benchmarks.stage_layout", "--bundle", str(_BUNDLE), "--threads", "1"],
        ["benchmarks.stage_layout", "--bundle", str(_BUNDLE), "--threads", "2"],
        ["benchmarks.overhead"],
        ["benchmarks.http_ceiling"],
    ]
    if options.data is not None:
        commands.append(["benchmarks.batch_accuracy", "--data", str(options.data)])
    parts, statuses = [_heading()], []
    for command in commands:
        done = _run(command)
        statuses.append(done.returncode)
        parts.append(_section(" ".join(command), done))
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{_slug(_processor())}.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    sys.stdout.write(f"written to {path.relative_to(Path.cwd())}\n")
    return 1 if any(statuses) else 0


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    sys.stdout.write(f"\n## {command[0]}\n\n")
    sys.stdout.flush()
    done = subprocess.run(  # noqa: S603 - this interpreter, on modules named here
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=False
    )
    sys.stdout.write(done.stdout)
    return done


def _section(name: str, done: subprocess.CompletedProcess[str]) -> str:
    verdict = "" if done.returncode == 0 else f"\nExit status {done.returncode}.\n"
    return f"## `python -m {name}`\n\n{done.stdout}{verdict}"


def _heading() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "torch", "numpy"))
    cores = len(os.sched_getaffinity(0))
    return (
        f"# {_processor()}, {cores} cores, no GPU\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {packages}.\n"
        "A shared machine: only ratios mean anything.\n"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _slug(text: str) -> str:
    kept = "".join(c if c.isalnum() else "-" for c in text.lower())
    return "-".join(part for part in kept.split("-") if part)


if __name__ == "__main__":
    sys.exit(main())
