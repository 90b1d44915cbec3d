"""Images as request bodies, and requests as they go over the wire."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serving.server import Endpoint

_JPEG_QUALITY: Final = 95
_LARGE_SHAPE: Final = (224, 224, 3)
_WHITE: Final = 255
NUMBER_BITS: Final = 16


class Form(Enum):
    """What an image is sent as."""

    NPY = "npy"
    PNG = "png"
    JPEG = "jpeg"
    NUMBERED = "numbered"  # an array of ImageNet's size that holds nothing but the image's number


CONTENT_TYPES: Final = {
    Form.NPY: "application/x-npy",
    Form.PNG: "image/png",
    Form.JPEG: "image/jpeg",
    Form.NUMBERED: "application/x-npy",
}


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Requests of one run, whole, by the image they bring; made before the clock starts."""

    port: int
    by_image: dict[int, bytes]


def build_requests(
    endpoint: Endpoint, pixels: NDArray[np.uint8], wanted: Sequence[int], *, form: Form
) -> Requests:
    """Return one request for every image wanted.

    Args:
        endpoint: Where they go.
        pixels: Of all images, shape ``(N, H, W, 3)``.
        wanted: Indices into `pixels`.
        form: Of the bodies.
    """
    by_image = {}
    for i in sorted(set(wanted)):
        image = numbered(i) if form is Form.NUMBERED else pixels[i]
        body = encode(image, form)
        by_image[i] = post(endpoint, body, content_type=CONTENT_TYPES[form])
    return Requests(endpoint.port, by_image)


def encode(image: NDArray[np.uint8], form: Form) -> bytes:
    """Return one image, shape ``(H, W, 3)``, as a body."""
    file = io.BytesIO()
    if form in {Form.NPY, Form.NUMBERED}:
        np.save(file, image)
    elif form is Form.PNG:
        Image.fromarray(image).save(file, "png")
    else:
        Image.fromarray(image).save(file, "jpeg", quality=_JPEG_QUALITY)
    return file.getvalue()


def numbered(number: int) -> NDArray[np.uint8]:
    """Return an image of ImageNet's size, grey but for a number below 2**`NUMBER_BITS`.

    Its bits are the first row's first pixels, black or white: every normalisation keeps them apart.
    """
    image = np.full(_LARGE_SHAPE, _WHITE // 2, dtype=np.uint8)
    image[0, :NUMBER_BITS] = _WHITE * _bits(number)[:, None]
    return image


def numbers_of(inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the numbers of normalised `numbered` images, shape ``(B, 3, H, W)``."""
    bits = inputs[:, 0, 0, :NUMBER_BITS] > 0
    return np.asarray(bits @ (1 << np.arange(NUMBER_BITS, dtype=np.int64)))


def _bits(number: int) -> NDArray[np.uint8]:
    return np.asarray((number >> np.arange(NUMBER_BITS)) & 1, dtype=np.uint8)


def post(endpoint: Endpoint, body: bytes, *, content_type: str) -> bytes:
    """Return an HTTP/1.1 request; the connection is kept."""
    fields = {
        "Host": f"127.0.0.1:{endpoint.port}",
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        **endpoint.headers,
    }
    lines = [f"POST {endpoint.path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
