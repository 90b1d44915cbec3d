"""What a stage reads: pixels that are handed over first, or what the stage before it left."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.backends.base import FeatureRows, ModelKey, StageSite
from service.engine.features import HeldFeatures
from service.engine.image import InFlightImage
from service.errors import BackendFailed

_NO_FAILURES: Final[Mapping[int, str]] = {}


def take_in(
    site: StageSite,
    model: ModelKey,
    images: Sequence[InFlightImage],
    inputs: Sequence[NDArray[np.float32] | None],
) -> tuple[list[FeatureRows], Mapping[int, str]]:
    """Hand the pixels of a batch over, all at once where that goes well.

    Args:
        site: Takes them.
        model: Whose stage 0 reads them.
        images: At least one.
        inputs: Their cohorts' pixels, of each.

    Returns:
        What the stage is to read, and why images were not taken, by position.
    """
    runs = _runs_of_pixels(images, inputs)
    try:
        arrays = [pixels for _, pixels in runs]
        handle = site.put(model, arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
        return [FeatureRows(handle, tuple(range(handle.num_rows)))], _NO_FAILURES
    except (BackendFailed, ValueError):
        return _take_in_one_by_one(site, model, runs)


def _take_in_one_by_one(
    site: StageSite, model: ModelKey, runs: Sequence[tuple[int, NDArray[np.float32]]]
) -> tuple[list[FeatureRows], Mapping[int, str]]:
    """Find out whose pixels are refused: they fail, the others run."""
    parts: list[FeatureRows] = []
    failures: dict[int, str] = {}
    for first, pixels in runs:
        try:
            handle = site.put(model, pixels)
        except BackendFailed as error:
            failures.update(dict.fromkeys(range(first, first + len(pixels)), str(error)))
        else:
            parts.append(FeatureRows(handle, tuple(range(handle.num_rows))))
    return parts, failures


def _runs_of_pixels(
    images: Sequence[InFlightImage], inputs: Sequence[NDArray[np.float32] | None]
) -> list[tuple[int, NDArray[np.float32]]]:
    """Return pixels of neighbouring images together, with the position of the first."""
    runs: list[tuple[int, NDArray[np.float32]]] = []
    begins, image_of_next = 0, -1
    last: NDArray[np.float32] | None = None
    for at, (image, pixels) in enumerate(zip(images, inputs, strict=True)):
        if pixels is None:
            raise ValueError(f"image {image.position} has no pixels left")
        if pixels is not last or image.position != image_of_next:
            last, begins = pixels, at
            runs.append((at, pixels[image.position : image.position + 1]))
        else:
            first = image.position - (at - begins)
            runs[-1] = (begins, pixels[first : image.position + 1])
        image_of_next = image.position + 1
    return runs


def parts_of(images: Sequence[InFlightImage]) -> list[FeatureRows]:
    """Return what the images of a batch have come to, neighbours of one handle together."""
    parts: list[FeatureRows] = []
    held, rows = images[0].held, list[int]()
    for image in images:
        if image.held is not held:
            parts.append(_rows(held, rows))
            held, rows = image.held, []
        rows.append(image.row)
    parts.append(_rows(held, rows))
    return parts


def _rows(held: HeldFeatures | None, rows: Sequence[int]) -> FeatureRows:
    if held is None or held.handle is None:
        raise ValueError("an image has no features to go on with")
    return FeatureRows(held.handle, tuple(rows))
