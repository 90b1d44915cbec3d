"""One image's bytes → pixels of the network's size, within limits; synchronous and unshared.

Formats and limits are judged before Pillow sees a byte (`image_form`), colour and scaling are
`model_store.preprocessing`. Who decodes when and where is `service.decode`.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from model_store.preprocessing import fit, upright_rgb
from service.errors import ImageUndecodable
from service.image_form import ImageForm, check_form, identify, limit_pixels

_MAX_TINY_SIDE: Final = 64  # pixels; decoding one costs less than a hop to a thread and back
_MAX_TINY_BYTES: Final = 2**14  # 64 x 64 x 3 and some; the most hostile takes 5 ms
_TINY_FORMS: Final = frozenset({ImageForm.JPEG, ImageForm.PNG})
_INFLATED: Final = (b"zTXt", b"iTXt", b"iCCP")  # PNG chunks that may be a thousand times larger

# Called directly, not through `Image.open`: the format is known, only the first picture of a
# JPEG with several is meant, and the limits are ours.
_READERS: Final[Mapping[ImageForm, type[ImageFile.ImageFile]]] = {
    ImageForm.JPEG: JpegImageFile,
    ImageForm.PNG: PngImageFile,
    ImageForm.WEBP: WebPImageFile,
    ImageForm.GIF: GifImageFile,
    ImageForm.BMP: BmpImageFile,
    ImageForm.TIFF: TiffImageFile,
}

# What Pillow's readers let out on broken bytes. Fuzzing met the first four; to the others their
# code has a way.
_PILLOW_FAILURES: Final = (
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    MemoryError,
    RuntimeError,  # NotImplementedError, RecursionError
    Warning,  # where the process turns warnings into errors
    struct.error,
    zlib.error,
)


class ImageSize(NamedTuple):
    """What the network reads, in pixels."""

    height: int
    width: int


def settle_pillow() -> None:
    """Leave limits to this package and keep Pillow's remarks on damaged files out of the log.

    Process-wide, and harmless to repeat: the warnings module knows no other scope that is safe
    with threads.
    """
    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(data: bytes, *, size: ImageSize, max_pixels: int) -> NDArray[np.uint8]:
    """Return the pixels of an encoded image at the network's size, shape ``(H, W, 3)``.

    Raises:
        ImageUndecodable: The bytes are no image of a format that is read, or a broken one.
        PayloadTooLarge: It has more than `max_pixels`.
    """
    return load_pixels(open_image(data, max_pixels=max_pixels), size=size)


def open_image(data: bytes, *, max_pixels: int) -> ImageFile.ImageFile:
    """Read an image's headers, and refuse it by them.

    Raises:
        ImageUndecodable: The bytes are no image of a format that is read, or a broken one.
        PayloadTooLarge: It has more than `max_pixels`.
    """
    form = identify(data)
    check_form(data, form, max_pixels)
    try:
        image = _READERS[form](io.BytesIO(data))
    except _PILLOW_FAILURES as failure:
        raise ImageUndecodable(f"the {form} cannot be read") from failure
    limit_pixels(image.width * image.height, max_pixels)
    return image


def load_pixels(image: ImageFile.ImageFile, *, size: ImageSize) -> NDArray[np.uint8]:
    """Return the pixels of an opened image at the network's size, shape ``(H, W, 3)``.

    Raises:
        ImageUndecodable: It is broken, or of a colour space that has no way to RGB.
    """
    try:
        return fit(upright_rgb(image), height=size.height, width=size.width)
    except _PILLOW_FAILURES as failure:
        raise ImageUndecodable(f"the {image.format} cannot be decoded") from failure


def opens_at_once(data: bytes) -> bool:
    """Say whether reading the headers costs microseconds, whoever made the bytes."""
    return (
        len(data) < _MAX_TINY_BYTES
        and identify(data) in _TINY_FORMS
        and not any(name in data for name in _INFLATED)
    )


def loads_at_once(width: int, height: int) -> bool:
    """Say whether a picture is so small that its pixels cost microseconds."""
    return max(width, height) <= _MAX_TINY_SIDE
