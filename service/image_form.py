"""What an encoded image claims to be, and whether reading it is bounded work.

Pillow reads headers in Python, one marker, chunk or strip at a time, and some of its readers
allocate what a header declares. A few megabytes made for the purpose keep it busy for minutes or
fill memory, whatever the number of pixels. Each format is walked here as Pillow walks it, with a
limit; what passes may still be broken, but breaks soon.
"""

import re
from enum import StrEnum
from typing import Final

from service.errors import ImageUndecodable, PayloadTooLarge
from service.tiff_form import TiffUnbounded, largest_tile_pixels

_MEGA: Final = 1_000_000

_MAX_JPEG_SEGMENTS: Final = 4096  # a profile in 255 pieces, previews and notes need some hundreds
_MAX_JPEG_SCANS: Final = 256  # 10 are usual; each passes over every coefficient again
_MAX_JPEG_JUNK_BYTES: Final = 2**16  # between segments
_JPEG_MARKER: Final = re.compile(rb"\xff+[^\x00\xff]")
_JPEG_SCAN: Final = 0xDA
_JPEG_BARE: Final = frozenset({0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})  # without a length

_MAX_PNG_CHUNKS: Final = 2**16
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_OVERHEAD: Final = 12  # of a chunk: length, name, checksum

_MAX_GIF_BLOCKS: Final = 2**15  # before the first frame
_GIF_HEADER: Final = 13
_GIF_FRAME: Final = 0x2C
_GIF_EXTENSION: Final = 0x21
_GIF_COMMENT: Final = 0xFE

# Pillow expands these in Python, a pixel at a time.
_MAX_RUN_LENGTH_PIXELS: Final = 2**20
_RUN_LENGTHS: Final = (b"\1", b"\2")  # a BMP's method of compression
_OS2_HEADER_BYTES: Final = 12  # it names no method


class ImageForm(StrEnum):
    """The formats that are read, by Pillow's names."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"


def identify(data: bytes) -> ImageForm:
    """Tell an image's format from its first bytes.

    Raises:
        ImageUndecodable: It is none of those read.
    """
    if not data:
        raise ImageUndecodable("there are no bytes")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ImageForm.WEBP
    for form, magics in _MAGICS.items():
        if data.startswith(magics):
            return form
    raise ImageUndecodable("the bytes are no JPEG, PNG, WebP, GIF, BMP or TIFF")


def check_form(data: bytes, form: ImageForm, max_pixels: int) -> None:
    """Refuse an image whose headers alone would cost too much, or declare too many pixels.

    Args:
        data: The whole image.
        form: What `identify` said.
        max_pixels: Most pixels of anything that a header makes a reader allocate.

    Raises:
        ImageUndecodable: It is broken, or made to keep a reader busy.
        PayloadTooLarge: It declares more than `max_pixels`.
    """
    match form:
        case ImageForm.JPEG:
            _check_jpeg(data)
        case ImageForm.PNG:
            _check_png(data)
        case ImageForm.WEBP:
            limit_pixels(_webp_pixels(data), max_pixels)
        case ImageForm.GIF:
            limit_pixels(_gif_pixels(data), max_pixels)
        case ImageForm.BMP:
            _check_bmp(data)
        case ImageForm.TIFF:
            _check_tiff(data, max_pixels)


def limit_pixels(pixels: int, max_pixels: int) -> None:
    """Refuse an image of more than `max_pixels`.

    Raises:
        PayloadTooLarge: It has more.
    """
    if pixels > max_pixels:
        raise PayloadTooLarge(
            "the image", limit=max_pixels / _MEGA, unit="megapixels", actual=pixels / _MEGA
        )


_MAGICS: Final = {
    ImageForm.JPEG: (b"\xff\xd8\xff",),
    ImageForm.PNG: (_PNG_SIGNATURE,),
    ImageForm.GIF: (b"GIF87a", b"GIF89a"),
    ImageForm.BMP: (b"BM",),
    ImageForm.TIFF: (b"II\x2a\x00", b"MM\x00\x2a", b"II\x2b\x00", b"MM\x00\x2b"),
}


def _check_jpeg(data: bytes) -> None:
    # Nothing but a marker looks like this, since coded data escapes every 0xFF.
    if data.count(bytes((0xFF, _JPEG_SCAN))) > _MAX_JPEG_SCANS:
        raise ImageUndecodable(f"the JPEG has more than {_MAX_JPEG_SCANS} scans")
    at, junk = 2, 0
    for _ in range(_MAX_JPEG_SEGMENTS):
        marker = _JPEG_MARKER.search(data, at)
        if marker is None:
            raise ImageUndecodable("the JPEG ends before its first scan")
        junk += marker.end() - at - 2
        code = data[marker.end() - 1]
        if junk > _MAX_JPEG_JUNK_BYTES:
            break
        if code == _JPEG_SCAN:
            return
        at = marker.end()
        if code not in _JPEG_BARE:
            at += max(2, int.from_bytes(data[at : at + 2]))
    raise ImageUndecodable("the JPEG has too much before its first scan")


def _check_png(data: bytes) -> None:
    at = len(_PNG_SIGNATURE)
    for _ in range(_MAX_PNG_CHUNKS):
        if at >= len(data) or data[at + 4 : at + 8] == b"IEND":
            return
        at += int.from_bytes(data[at : at + 4]) + _PNG_OVERHEAD
    raise ImageUndecodable(f"the PNG has more than {_MAX_PNG_CHUNKS} chunks")


def _webp_pixels(data: bytes) -> int:
    kind = data[12:16]
    if kind == b"VP8X":
        return _less_one(data[24:27]) * _less_one(data[27:30])
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ((bits & 0x3FFF) + 1) * (((bits >> 14) & 0x3FFF) + 1)
    width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width * height


def _less_one(field: bytes) -> int:
    return int.from_bytes(field, "little") + 1


def _gif_pixels(data: bytes) -> int:
    """Return the pixels of the screen that holds both what is declared and the first frame."""
    at = _gif_first_frame(data)
    screen = data[6:10]
    frame = [int.from_bytes(data[at + k : at + k + 2], "little") for k in (1, 3, 5, 7)]
    width = max(int.from_bytes(screen[:2], "little"), frame[0] + frame[2])
    height = max(int.from_bytes(screen[2:], "little"), frame[1] + frame[3])
    return width * height


def _gif_first_frame(data: bytes) -> int:
    """Return where the first frame's descriptor is."""
    at = _GIF_HEADER
    if len(data) > at and data[10] & 0x80:
        at += 3 << ((data[10] & 7) + 1)
    blocks = 0
    while at < len(data) and data[at] == _GIF_EXTENSION and blocks < _MAX_GIF_BLOCKS:
        is_comment = data[at + 1 : at + 2] == bytes((_GIF_COMMENT,))
        at += 2
        # Pillow takes the first block of anything but a comment unread, an empty one too.
        if not is_comment and at < len(data):
            at += data[at] + 1
        while at < len(data) and data[at] and blocks < _MAX_GIF_BLOCKS:
            at += data[at] + 1
            blocks += 1
        at += 1
        blocks += 1
    if at >= len(data) or data[at] != _GIF_FRAME:
        raise ImageUndecodable("the GIF has no frame where its first should be")
    return at


def _check_bmp(data: bytes) -> None:
    if data[14:15] == bytes((_OS2_HEADER_BYTES,)) or data[30:31] not in _RUN_LENGTHS:
        return
    width, height = (
        abs(int.from_bytes(data[at : at + 4], "little", signed=True)) for at in (18, 22)
    )
    if width * height > _MAX_RUN_LENGTH_PIXELS or len(data) > 2 * _MAX_RUN_LENGTH_PIXELS:
        raise ImageUndecodable(
            f"a run-length coded BMP is read up to {_MAX_RUN_LENGTH_PIXELS / _MEGA:.1f} megapixels"
        )


def _check_tiff(data: bytes, max_pixels: int) -> None:
    try:
        pixels = largest_tile_pixels(data)
    except TiffUnbounded as unbounded:
        raise ImageUndecodable(f"the TIFF has {unbounded}") from unbounded
    limit_pixels(pixels, max_pixels)
