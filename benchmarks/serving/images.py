"""CIFAR-10's test images and what the default bundle says of each at every exit.

`read_images` makes the file once, with torch; whoever opens it later needs none.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

IMAGES_FILE: Final = "images.npz"  # in a work folder


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """N test images in the data set's order, at K exits."""

    pixels: NDArray[np.uint8]  # (N, H, W, 3)
    labels: NDArray[np.int64]  # (N,)
    logits: NDArray[np.float32]  # (N, K, classes), of the bundle's own graphs

    @classmethod
    def prepared(cls, data: Path, work: Path) -> Self:
        """Return the images, from the work folder or else from the data set.

        Raises:
            subprocess.CalledProcessError: The data set cannot be read; it says why.
        """
        path = work / IMAGES_FILE
        if not path.is_file():
            command = [sys.executable, "-m", "benchmarks.serving.read_images"]
            subprocess.run([*command, "--data", data, "--output", path], check=True)  # noqa: S603 - this interpreter
        return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` stored."""
        with np.load(path) as arrays:
            return cls(arrays["pixels"], arrays["labels"], arrays["logits"])

    def write(self, path: Path) -> None:
        """Store everything in one file, whole or not at all."""
        part = path.with_suffix(".part.npz")
        np.savez(part, pixels=self.pixels, labels=self.labels, logits=self.logits)
        part.replace(path)

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether an exit's answer is right, shape ``(N, K)``."""
        return np.asarray(self.logits.argmax(axis=2) == self.labels[:, None])

    @property
    def exit_accuracies(self) -> tuple[float, ...]:
        """Share of right answers by exit."""
        return tuple(float(a) for a in self.is_right.mean(axis=0))
