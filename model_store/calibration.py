"""`calibration.npz`: what the network said of images it was not trained on, and what follows.

Every threshold, expectation and temperature of a bundle comes from this table and can be had again
from it. The images themselves are not in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from model_store.array_archive import pack, unpack
from model_store.confidence import max_softmax, probabilities

FITTING_SHARE: Final = 0.4  # 2 000 of 5 000 fit temperatures, 3 000 are left to certify
TEMPERATURE_RANGE: Final = (
    0.05,
    20.0,
)  # where every fitting image is right, likelihood has no peak

_BISECTIONS: Final = 60  # the logarithm of 1/T to the last bit of float64
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "labels": np.dtype("<i8"),
    "logits": np.dtype("<f2"),
    "is_fitting": np.dtype("|b1"),
    "temperatures": np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The hold-out images, N of them, at the K exits of one network.

    float16 keeps the file small enough to commit; its rounding, 0.004 at a logit of 8, is far below
    what N images can resolve.

    Raises:
        ValueError: An array has another shape or type than is said here, holds what is not
            finite or no class, or one part of the split is empty.
    """

    labels: NDArray[np.int64]  # (N,), true class of each image
    logits: NDArray[np.float16]  # (N, K, classes)
    is_fitting: NDArray[np.bool_]  # (N,), True: fits temperatures; False: left to certify
    temperatures: NDArray[np.float64]  # (K,), positive

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            if getattr(self, name).dtype != dtype:
                raise ValueError(f"{name} is {getattr(self, name).dtype}: expected {dtype}")
        self._check_shapes()
        self._check_values()

    @classmethod
    def build(
        cls, logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], seed: int
    ) -> Self:
        """Split the hold-out images by seed and fit the temperatures on the fitting part.

        Args:
            logits: Of every image at every exit, shape ``(images, exits, classes)``. They are
                rounded to float16 first, so that the file alone gives the temperatures again.
            labels: True classes, shape ``(images,)``.
            seed: Decides who is in which part.

        Raises:
            ValueError: As the constructor; a logit beyond 65504 is an infinity in float16.
        """
        num_images = len(labels)
        order = np.random.default_rng(seed).permutation(num_images)
        is_fitting = np.zeros(num_images, dtype=np.bool_)
        is_fitting[order[: round(FITTING_SHARE * num_images)]] = True
        with np.errstate(over="ignore"):  # an overflow is refused below, with its name
            rounded = np.asarray(logits, dtype=np.float16)
        classes = np.asarray(labels, dtype=np.int64)
        unfitted = cls(classes, rounded, is_fitting, np.ones(rounded.shape[1:2]))
        temperatures = fit_temperatures(rounded, classes, is_fitting)
        return cls(unfitted.labels, unfitted.logits, is_fitting, temperatures)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the calibration that a file's content holds.

        Raises:
            ValueError: It is not such a file, or as the constructor.
        """
        return cls(**unpack(raw, _DTYPES))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the calibration of a file that is not yet part of a bundle.

        Raises:
            OSError: The file cannot be read.
            ValueError: It holds something else.
        """
        return cls.from_bytes(path.read_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's content; equal calibrations give equal bytes."""
        return pack({name: getattr(self, name) for name in _DTYPES})

    def write(self, path: Path) -> None:
        """Write the file; a bundle's is written by `model_store.writer`.

        Raises:
            OSError: The file cannot be written.
        """
        path.write_bytes(self.to_bytes())

    @property
    def num_images(self) -> int:
        """N."""
        return int(self.logits.shape[0])

    @property
    def num_exits(self) -> int:
        """K."""
        return int(self.logits.shape[1])

    @property
    def num_classes(self) -> int:
        """Classes of every exit."""
        return int(self.logits.shape[2])

    def confidences(self) -> NDArray[np.float64]:
        """Return how sure each exit is of each image, shape ``(N, K)``, in ``[0, 1]``."""
        by_exit = [
            max_softmax(self.logits[:, exit_index], float(temperature))
            for exit_index, temperature in enumerate(self.temperatures)
        ]
        return np.stack(by_exit, axis=1)

    def is_right(self) -> NDArray[np.bool_]:
        """Return whether each exit's answer for each image is its label, shape ``(N, K)``."""
        right: NDArray[np.bool_] = self.logits.argmax(axis=2) == self.labels[:, np.newaxis]
        return right

    def check_fits(self, *, num_exits: int, num_classes: int) -> None:
        """Refuse to be another network's calibration.

        Raises:
            ValueError: The numbers differ from the table's.
        """
        if (self.num_exits, self.num_classes) != (num_exits, num_classes):
            raise ValueError(
                f"logits have {self.num_exits} exits and {self.num_classes} classes: "
                f"the manifest has {num_exits} and {num_classes}"
            )

    def _check_shapes(self) -> None:
        if self.logits.ndim != len(("images", "exits", "classes")):
            raise ValueError(f"logits have shape {self.logits.shape}: expected three axes")
        if min(self.logits.shape) == 0 or self.num_classes < len(("one", "another")):
            raise ValueError(f"logits of shape {self.logits.shape} distinguish nothing")
        expected = {
            "labels": (self.num_images,),
            "is_fitting": (self.num_images,),
            "temperatures": (self.num_exits,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}: expected {shape}")

    def _check_values(self) -> None:
        if not np.isfinite(self.logits).all():
            raise ValueError("logits hold a NaN or an infinity")
        if self.labels.min() < 0 or self.labels.max() >= self.num_classes:
            raise ValueError(
                f"labels run from {self.labels.min()} to {self.labels.max()}: "
                f"expected 0 to {self.num_classes - 1}"
            )
        if not (np.isfinite(self.temperatures).all() and self.temperatures.min() > 0):
            raise ValueError(f"temperatures must be finite and positive, not {self.temperatures}")
        num_fitting = int(self.is_fitting.sum())
        if num_fitting in (0, self.num_images):
            raise ValueError(f"{num_fitting} of {self.num_images} images fit: a part is empty")


def fit_temperatures(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    is_fitting: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return the temperature of each exit that makes the fitting images' labels likeliest.

    Each exit is a problem of its own, convex in 1/T.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, §4.2.

    Args:
        logits: Shape ``(images, exits, classes)``, finite.
        labels: Shape ``(images,)``.
        is_fitting: Which images count, at least one; the others are not looked at.

    Returns:
        Shape ``(exits,)``, within `TEMPERATURE_RANGE`.
    """
    fitting = np.asarray(logits[is_fitting], dtype=np.float64)
    chosen = labels[is_fitting]
    return np.array([_fit_one(fitting[:, k], chosen) for k in range(fitting.shape[1])])


def _fit_one(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    low, high = TEMPERATURE_RANGE
    for _ in range(_BISECTIONS):
        middle = float(np.sqrt(low * high))
        if _wants_hotter(logits, labels, middle):
            low = middle
        else:
            high = middle
    return high


def _wants_hotter(
    logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float
) -> bool:
    """Return whether the likelihood rises with T here.

    The slope of the mean loss by 1/T is E[z] under the softmax less the label's z: positive where
    the network is surer than it is right.
    """
    expected = (probabilities(logits, temperature) * logits).sum(axis=1)
    return float(np.mean(expected - logits[np.arange(len(labels)), labels])) > 0
