"""What a measurement was taken on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def slug(text: str) -> str:
    """Return a name for files."""
    kept = "".join(c if c.isalnum() else "-" for c in text.lower())
    return "-".join(part for part in kept.split("-") if part)


def described(packages: tuple[str, ...] = ("onnxruntime", "numpy", "uvicorn", "uvloop")) -> str:
    """Return processor, cores, day and versions in two lines."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{processor()}, {cores} cores, {platform.system()} {platform.release()}.\n"
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}.\n"
    )
