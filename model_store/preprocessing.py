"""What a bundle's input section means: any picture → upright RGB → the network's size → floats.

Training, export and serving call these, so that a model is served what it was trained on. Bytes,
formats and limits are the service's own affair.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

_MID_GREY: Final = 128
_MAX_BYTE: Final = 255
_UINT16_PER_BYTE: Final = 257  # 65535 / 255

_SIXTEEN_BIT_MODES: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# Integers of 32 bits and floats carry no white point; the usual ones are tried in this order.
_WHITE_POINTS_BY_MODE: Final = {"I": (65535.0,), "F": (1.0, 255.0, 65535.0)}

_TRANSPOSE_BY_ORIENTATION: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's EXIF reader raises on damage; a photograph is not lost with its notes.
_EXIF_FAILURES: Final = (
    LookupError,
    OSError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Bring any picture to 8-bit RGB, the way up its EXIF says, opaque over mid-grey.

    16 bits are divided by 257. 32-bit integers and floats are divided so that the smallest usual
    white point that holds them all, or else their maximum, becomes 255; what is negative is black.

    Args:
        image: Any mode that Pillow converts to RGB, and the deep ones. It may not be loaded yet.

    Raises:
        ValueError: Pillow knows no way from its mode to RGB.
        OSError: It was not loaded yet and is broken; Pillow raises much else for that.
    """
    picture = _eight_bit(_upright(image))
    if picture.has_transparency_data:
        return _over_mid_grey(picture.convert("RGBA"))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def fit(image: Image.Image, *, height: int, width: int) -> NDArray[np.uint8]:
    """Bring an RGB picture to the network's size: scaled to cover it, centre-cropped.

    Scaling is bilinear and antialiased, shorter side first; a picture of that size is left alone.

    Returns:
        Pixels, shape ``(height, width, 3)``; not to be written to.
    """
    if image.size != (width, height):
        # One step with the crop as its box: scaling 1 x 65000 to cover first would take gigabytes.
        image = image.resize(
            (width, height), Image.Resampling.BILINEAR, box=_covered_box(image.size, height, width)
        )
    return np.asarray(image)


def normalise(
    pixels: NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Turn pixels into what stage 0 reads: ``(pixels / 255 - mean) / std``, channels first.

    Args:
        pixels: Shape ``(B, H, W, 3)``.
        mean: Of each channel, in [0, 1].
        std: Of each channel, in the same units, positive.

    Returns:
        Shape ``(B, 3, H, W)``, C-contiguous.
    """
    scale, offset = _scale_and_offset(tuple(mean), tuple(std))
    batch, height, width, channels = pixels.shape
    inputs = np.empty((batch, channels, height, width), np.float32)
    np.multiply(pixels.transpose(0, 3, 1, 2), scale, out=inputs)
    inputs -= offset
    return inputs


@lru_cache(maxsize=64)
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what pixels are multiplied by and what is then taken off, shape (channels, 1, 1)."""
    deviations = np.asarray(std, np.float64)
    scale = (1.0 / (_MAX_BYTE * deviations)).astype(np.float32)[:, None, None]
    offset = (np.asarray(mean, np.float64) / deviations).astype(np.float32)[:, None, None]
    return scale, offset


def _upright(image: Image.Image) -> Image.Image:
    # A PNG's EXIF may follow its pixels, and TIFF's reader turns the picture itself.
    image.load()
    try:
        turn = _TRANSPOSE_BY_ORIENTATION.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _EXIF_FAILURES:
        return image
    return image if turn is None else image.transpose(turn)


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        return _from_sixteen_bit(image)
    if image.mode in _WHITE_POINTS_BY_MODE:
        return _from_unbounded(image, _WHITE_POINTS_BY_MODE[image.mode])
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > _MAX_BYTE:
        # Pillow reads 16-bit colour as its high bytes, but leaves the colour that means
        # transparent at 16 bits.
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(_rounded(values))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    opaque = (values != transparent).astype(np.uint8) * np.uint8(_MAX_BYTE)
    return Image.merge("LA", (grey, Image.fromarray(opaque)))


def _rounded(values: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return ((values + _UINT16_PER_BYTE // 2) // _UINT16_PER_BYTE).astype(np.uint8)


def _from_unbounded(image: Image.Image, white_points: Sequence[float]) -> Image.Image:
    # In place and in float32: of 25 megapixels every copy is 100 MB, and 8 bits are wanted.
    values = np.asarray(image).astype(np.float32)
    values[~np.isfinite(values)] = 0
    largest = float(values.max())
    white = next((point for point in white_points if largest <= point), largest)
    values *= _MAX_BYTE / white
    np.clip(values, 0, _MAX_BYTE, out=values)
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))


def _over_mid_grey(picture: Image.Image) -> Image.Image:
    ground = Image.new("RGB", picture.size, (_MID_GREY, _MID_GREY, _MID_GREY))
    ground.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
    return ground


def _covered_box(
    size: tuple[int, int], height: int, width: int
) -> tuple[float, float, float, float]:
    """Return the centred part of a picture that has the network's proportions, in its pixels."""
    image_width, image_height = size
    scale = max(width / image_width, height / image_height)
    box_width = min(width / scale, image_width)
    box_height = min(height / scale, image_height)
    left = (image_width - box_width) / 2
    top = (image_height - box_height) / 2
    return left, top, left + box_width, top + box_height
