"""Frames sent as ``.npy``: their shape, read without evaluating anything, and a view of them.

NumPy's own reader evaluates the header as a Python literal, tokenises and warns about old ones and
may unpickle. One dtype is taken here, so three patterns read all there is to know.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequest

ARRAY_MAGIC: Final = b"\x93NUMPY"

# The field that holds the header's length.
_LENGTH_BY_MAJOR: Final[Mapping[int, Struct]] = {1: Struct("<H"), 2: Struct("<I"), 3: Struct("<I")}
_LENGTH_AT: Final = 8  # after the magic and two bytes of version
_MAX_HEADER_BYTES: Final = 4096  # NumPy pads to 118 for anything sent here
_UINT8: Final = re.compile(rb"""['"]descr['"]\s*:\s*['"][|<>=]?(?:u1|B)['"]""")
_ORDER: Final = re.compile(rb"""['"]fortran_order['"]\s*:\s*(True|False)""")
_SHAPE: Final = re.compile(rb"""['"]shape['"]\s*:\s*\(([\d\s,L]{0,200})\)""")
_MAX_AXIS_DIGITS: Final = 12
_NUM_CHANNELS: Final = 3
_HEADERS_KEPT: Final = 64
_LONGEST_KEPT: Final = 256  # bytes; what is longer is not worth a place


class _Form(NamedTuple):
    """What a header says of the pixels behind it."""

    shape: tuple[int, ...]
    is_fortran: bool
    num_bytes: int


def view_frame(data: bytes) -> NDArray[np.uint8]:
    """Return the one frame of an array body, shape ``(H, W, 3)``, without copying.

    Raises:
        BadRequest: It is not a whole uint8 array of that shape.
    """
    return _view(data, "H×W×3")


def view_frames(data: bytes) -> NDArray[np.uint8]:
    """Return the frames of an array body, shape ``(N, H, W, 3)``, without copying.

    Raises:
        BadRequest: It is not a whole uint8 array of that shape, or one of no frames.
    """
    return _view(data, "N×H×W×3")


def _view(data: bytes, layout: str) -> NDArray[np.uint8]:
    header_at, pixels_at = _header_extent(data)
    header = data[header_at:pixels_at]
    read = _read_again if len(header) <= _LONGEST_KEPT else _read
    form = read(header, layout)
    if len(data) - pixels_at != form.num_bytes:
        raise BadRequest(
            f"{len(data) - pixels_at} bytes follow the array's header, its shape {form.shape} "
            f"wants {form.num_bytes}"
        )
    return np.ndarray(
        form.shape, np.uint8, data, offset=pixels_at, order="F" if form.is_fortran else "C"
    )


def _read(header: bytes, layout: str) -> _Form:
    shape = _shape(header)
    if len(shape) != len(layout.split("×")) or shape[-1] != _NUM_CHANNELS:
        raise BadRequest(f"the array's shape is {shape}, wanted is {layout}")
    if 0 in shape:
        raise BadRequest(f"the array's shape is {shape}: it holds no pixels")
    is_fortran = _field(_ORDER, header, "fortran_order") == b"True"
    # Python's integers, since a product of four hostile axes overflows NumPy's.
    return _Form(shape, is_fortran, num_bytes=math.prod(shape))


# Frames of one camera have one header, and reading it takes longer than all else about them.
_read_again = lru_cache(_HEADERS_KEPT)(_read)


def _header_extent(data: bytes) -> tuple[int, int]:
    """Return where the header begins and where the pixels do."""
    length_field = _LENGTH_BY_MAJOR.get(data[len(ARRAY_MAGIC)] if len(data) > _LENGTH_AT else 0)
    if length_field is None or not data.startswith(ARRAY_MAGIC):
        raise BadRequest("the body is not an array in the .npy format")
    header_at = _LENGTH_AT + length_field.size
    if len(data) < header_at:
        raise BadRequest("the array ends within its header")
    length: int = length_field.unpack_from(data, _LENGTH_AT)[0]
    if length > _MAX_HEADER_BYTES:
        raise BadRequest(f"the array's header has {length} bytes, taken are {_MAX_HEADER_BYTES}")
    if len(data) < header_at + length:
        raise BadRequest("the array ends within its header")
    return header_at, header_at + length


def _shape(header: bytes) -> tuple[int, ...]:
    if _UINT8.search(header) is None:
        raise BadRequest("the array is not of dtype uint8")
    axes = [axis.strip().rstrip(b"L") for axis in _field(_SHAPE, header, "shape").split(b",")]
    sizes = [axis for axis in axes if axis]
    if not all(axis.isdigit() and len(axis) <= _MAX_AXIS_DIGITS for axis in sizes):
        raise BadRequest("the array's shape cannot be read")
    return tuple(int(axis) for axis in sizes)


def _field(pattern: re.Pattern[bytes], header: bytes, name: str) -> bytes:
    found = pattern.search(header)
    if found is None:
        raise BadRequest(f"the array's header has no {name} that can be read")
    return found.group(1)
