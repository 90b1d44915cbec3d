"""Where the tensors of a batch lie in its block: both sides work it out from the manifest."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from model_store.manifest import Manifest
from model_store.reader import Bundle
from service.backends.base import ModelKey
from service.shared_block import SharedBlock

_ALIGNMENT: Final = 64  # bytes; what vector instructions like best
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True)
class BorderForm:
    """What is handed over at one border of the network, pixels in front of stage 0 included."""

    shapes: tuple[tuple[int, ...], ...]  # of each tensor, for one image

    @cached_property
    def row_bytes(self) -> int:
        """Of one image, all tensors together."""
        return _FLOAT_BYTES * sum(map(math.prod, self.shapes))

    def block_bytes(self, num_rows: int) -> int:
        """Return how large a block for so many images is."""
        return sum(aligned(_FLOAT_BYTES * num_rows * math.prod(shape)) for shape in self.shapes)

    def tensors(
        self, block: SharedBlock, offset: int, num_rows: int
    ) -> tuple[NDArray[np.float32], ...]:
        """Return the tensors of a batch where they lie, each of shape ``(num_rows, *shape)``."""
        return tuple(
            np.ndarray((num_rows, *shape), np.float32, block.buffer, at)
            for shape, at in self.places(offset, num_rows)
        )

    def places(self, offset: int, num_rows: int) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield the shape of each tensor, for one image, and where it begins."""
        for shape in self.shapes:
            yield shape, offset
            offset += aligned(_FLOAT_BYTES * num_rows * math.prod(shape))


@dataclass(frozen=True, slots=True)
class ModelForm:
    """What the stages of one model read and leave."""

    borders: tuple[BorderForm, ...]  # stage k reads border k and leaves border k + 1
    num_classes: int

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Return the form that a manifest describes."""
        image = manifest.input
        pixels = BorderForm(((image.channels, image.height, image.width),))
        left = [
            BorderForm(tuple(tuple(output.shape) for output in stage.outputs))
            for stage in manifest.stages
        ]
        return cls((pixels, *left), len(manifest.labels))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, ``(3, H, W)``."""
        return self.borders[0].shapes[0]

    @property
    def num_stages(self) -> int:
        """How many stages there are."""
        return len(self.borders) - 1

    def logits_bytes(self, num_rows: int) -> int:
        """Return how large the logits of so many images are."""
        return _FLOAT_BYTES * num_rows * self.num_classes


def forms_of(bundles: Mapping[ModelKey, Bundle]) -> dict[ModelKey, ModelForm]:
    """Return the forms of all models, in the order of the bundles."""
    return {key: ModelForm.of(bundle.manifest) for key, bundle in bundles.items()}


def aligned(num_bytes: int) -> int:
    """Return a size rounded up, so that what comes behind it lies well."""
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
