"""Images to learn from, to calibrate on and to test with; splits are fixed by a seed.

Nothing here varies an image (`augment` does): the calibration images a bundle's thresholds rest on
must look like those the server will see.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_store.preprocessing import fit, upright_rgb
from training.vision import torchvision_datasets


class ImageSet(Protocol):
    """Labelled pixels, fetched by index."""

    @property
    def labels(self) -> Tensor:
        """Class indices, int64, shape ``(N,)``."""

    def fetch(self, indices: Tensor) -> Tensor:
        """Return pixels, uint8, shape ``(B, C, H, W)``."""


@dataclass(frozen=True, slots=True)
class ArrayImages:
    """Images held in memory, on whichever device they will be used."""

    pixels: Tensor  # uint8, (N, C, H, W)
    labels: Tensor  # int64, (N,)

    def fetch(self, indices: Tensor) -> Tensor:
        """Return pixels, uint8, shape ``(B, C, H, W)``."""
        return self.pixels[indices]


@dataclass(frozen=True, slots=True)
class FolderImages:
    """Images decoded from files when they are fetched: shorter side scaled, centre cropped."""

    paths: tuple[Path, ...]
    labels: Tensor
    size: int  # pixels
    decoders: ThreadPoolExecutor

    def fetch(self, indices: Tensor) -> Tensor:
        """Return pixels, uint8, shape ``(B, C, H, W)``."""
        arrays = self.decoders.map(self._decode, indices.tolist())
        return torch.from_numpy(np.stack(list(arrays))).permute(0, 3, 1, 2).to(self.labels.device)

    def _decode(self, index: int) -> np.ndarray:
        with Image.open(self.paths[index]) as image:
            # The server's own functions: a model is served what it was trained on.
            return fit(upright_rgb(image), height=self.size, width=self.size)


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of another set's images."""

    images: ImageSet
    indices: Tensor

    @property
    def labels(self) -> Tensor:
        """Class indices, int64, shape ``(N,)``."""
        return self.images.labels[self.indices]

    def fetch(self, indices: Tensor) -> Tensor:
        """Return pixels, uint8, shape ``(B, C, H, W)``."""
        return self.images.fetch(self.indices[indices])


@dataclass(frozen=True, slots=True)
class Splits:
    """What a training run may see, by purpose."""

    train: ImageSet
    holdout: ImageSet  # of the training images; never augmented, never trained on
    test: ImageSet
    class_names: tuple[str, ...]
    digest: str  # of all pixels and labels, hexadecimal SHA-256


def load_splits(
    dataset: str,
    root: Path,
    *,
    holdout_images: int,
    image_size: int,
    seed: int,
    device: torch.device,
) -> Splits:
    """Load a data set and hold out some of its training images.

    Args:
        dataset: ``cifar10``, ``cifar100`` or ``folder`` (``train/<class>/*``, ``val/<class>/*``).
        root: Folder that holds it; CIFAR is downloaded there if it is not.
        holdout_images: How many training images to hold out.
        image_size: Pixels a side, of ``folder`` alone: CIFAR has its own.
        seed: Fixes which images are held out, whatever the model.
        device: Where arrays are kept.

    Raises:
        FileNotFoundError: The folder is not there and cannot be downloaded.
    """
    if dataset == "folder":
        train, test, names = _load_folder(root, image_size, device)
    else:
        train, test, names = _load_cifar(dataset, root, device)
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))
    kept, held_out = order[holdout_images:].to(device), order[:holdout_images].to(device)
    return Splits(
        train=Subset(train, kept.sort().values),
        holdout=Subset(train, held_out.sort().values),
        test=test,
        class_names=names,
        digest=_digest(train, test),
    )


def _load_cifar(
    dataset: str, root: Path, device: torch.device
) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    kind = _cifar_class(torchvision_datasets(), dataset)
    present = (root / kind.base_folder).is_dir()
    both = [kind(str(root), train=train, download=not present) for train in (True, False)]
    sets = [
        ArrayImages(
            torch.from_numpy(s.data).permute(0, 3, 1, 2).contiguous().to(device),
            torch.tensor(s.targets, dtype=torch.int64, device=device),
        )
        for s in both
    ]
    return sets[0], sets[1], tuple(both[0].classes)


def _cifar_class(datasets: ModuleType, dataset: str) -> Any:  # noqa: ANN401 - torchvision carries no types
    official: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[dataset]

    class LocalCopy(official):  # type: ignore[misc]  # a class without types
        """Takes a folder that is there as it is: rebuilt copies have other MD5s than the archive.

        What was trained on is told apart by the digest in the bundle's provenance.
        """

        meta: ClassVar[dict[str, Any]] = {**official.meta, "md5": None}

        def _check_integrity(self) -> bool:
            return Path(self.root, self.base_folder).is_dir()

    return LocalCopy


def _load_folder(
    root: Path, image_size: int, device: torch.device
) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    datasets = torchvision_datasets()
    decoders = ThreadPoolExecutor(thread_name_prefix="decode")
    listed = [datasets.ImageFolder(str(root / part)) for part in ("train", "val")]
    sets = [
        FolderImages(
            tuple(Path(path) for path, _ in s.samples),
            torch.tensor(s.targets, dtype=torch.int64, device=device),
            image_size,
            decoders,
        )
        for s in listed
    ]
    return sets[0], sets[1], tuple(listed[0].classes)


def _digest(*sets: ImageSet) -> str:
    digest = hashlib.sha256()
    for images in sets:
        digest.update(images.labels.cpu().numpy().tobytes())
        for part in _described(images):
            digest.update(part)
    return digest.hexdigest()


def _described(images: ImageSet) -> Sequence[bytes]:
    # Files are told apart by name and size: reading a large data set twice to name it is waste.
    if isinstance(images, FolderImages):
        return [f"{p.name} {p.stat().st_size}\n".encode() for p in images.paths]
    every = torch.arange(len(images.labels), device=images.labels.device)
    return [images.fetch(every).cpu().numpy().tobytes()]
