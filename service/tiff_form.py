"""How much a TIFF's first directory makes a reader allocate, and in how many pieces.

Format: Adobe, "TIFF Revision 6.0", section 2, "TIFF Structure"; BigTIFF has wider fields.
"""

import struct
from dataclasses import dataclass
from typing import Final

_MAX_ENTRIES: Final = 4096  # of a directory; there are some hundred tags
_MAX_PIECES: Final = 2**16  # strips or tiles; 25 megapixels in rows of a tall image
_OFFSETS: Final = frozenset({273, 324})  # tags: StripOffsets, TileOffsets
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_INTEGERS_BY_TYPE: Final = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 16: "Q"}
_BIG: Final = 43


class TiffUnbounded(Exception):
    """Reading it would take work out of proportion to its pixels."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields of a directory are."""

    order: str  # of bytes, as `struct` wants it
    directory_at: int
    count: str  # of entries
    entry: str  # tag, type, count of values; then the value
    value_bytes: int

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize(self.order + self.entry) + self.value_bytes


def largest_tile_pixels(data: bytes) -> int:
    """Return the pixels of the image, or of one tile where that is larger than the image.

    Raises:
        TiffUnbounded: Its directory, or what it lists, is too long, or is not there.
    """
    try:
        layout = _layout(data)
        (count,) = struct.unpack_from(layout.order + layout.count, data, layout.directory_at)
    except (struct.error, OverflowError) as failure:
        raise TiffUnbounded("no directory") from failure
    if count > _MAX_ENTRIES:
        raise TiffUnbounded(f"a directory of more than {_MAX_ENTRIES} entries")
    first = layout.directory_at + struct.calcsize(layout.order + layout.count)
    values: dict[int, int] = {}
    for at in range(first, first + count * layout.entry_bytes, layout.entry_bytes):
        if at + layout.entry_bytes > len(data):
            raise TiffUnbounded("a directory that ends early")
        tag, value, pieces = _entry(data, at, layout)
        if tag in _OFFSETS and pieces > _MAX_PIECES:
            raise TiffUnbounded(f"more than {_MAX_PIECES} strips or tiles")
        values[tag] = value
    image = values.get(_WIDTH, 0) * values.get(_HEIGHT, 0)
    return max(image, values.get(_TILE_WIDTH, 0) * values.get(_TILE_HEIGHT, 0))


def _layout(data: bytes) -> _Layout:
    order = "<" if data.startswith(b"II") else ">"
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == _BIG:
        (directory_at,) = struct.unpack_from(order + "Q", data, 8)
        return _Layout(order, directory_at, count="Q", entry="HHQ", value_bytes=8)
    (directory_at,) = struct.unpack_from(order + "I", data, 4)
    return _Layout(order, directory_at, count="H", entry="HHI", value_bytes=4)


def _entry(data: bytes, at: int, layout: _Layout) -> tuple[int, int, int]:
    tag, kind, count = struct.unpack_from(layout.order + layout.entry, data, at)
    value_format = layout.order + _INTEGERS_BY_TYPE.get(kind, "")
    if struct.calcsize(value_format) > layout.value_bytes:
        return tag, 0, count
    value_at = at + struct.calcsize(layout.order + layout.entry)
    return tag, sum(struct.unpack_from(value_format, data, value_at)), count
