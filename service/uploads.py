"""What was sent, understood as far as its form: one image, files, an archive's members, or arrays.

Nothing here looks at pixels, and a zip's members stay compressed until each is decoded, so that a
body is in memory once and what unpacks badly costs its own image alone. Multipart is taken apart
by the API, which hands over the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from service.archives import Archive, ZippedFile, read_tar, read_zip
from service.arrays import ARRAY_MAGIC
from service.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

IMAGE_MEDIA_TYPES: Final = (
    "image/*",
    "application/octet-stream",
    "application/x-npy",
    "multipart/form-data",
)
BATCH_MEDIA_TYPES: Final = (
    "multipart/form-data",
    "application/zip",
    "application/x-tar",
    "application/x-npy",
)

# What clients send that were not told what they send; curl's own default is the last.
_UNTOLD: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
_ARRAY: Final = "application/x-npy"
# As nearly all images are declared; these need not be taken apart.
_USUAL: Final = frozenset(
    {"application/octet-stream", "application/x-npy", "image/jpeg", "image/png"}
)
_ZIP: Final = frozenset({"application/zip", "application/x-zip-compressed"})
_TAR: Final = "application/x-tar"
_ZIP_MAGICS: Final = (b"PK\x03\x04", b"PK\x05\x06")  # with members; without any
_TAR_MAGIC: Final = slice(257, 262)  # where "ustar" stands


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The most that one request may send; more is refused before any of it is decoded."""

    max_pixels: int = 25_000_000  # of one image
    max_images: int = 10_000  # of one batch
    max_image_bytes: int = 16 * 2**20  # of one image, encoded, once out of its archive
    max_batch_bytes: int = 256 * 2**20  # of a batch's images together, encoded


class UploadKind(StrEnum):
    """How the pixels of one image were sent."""

    ENCODED = "encoded"  # a file: JPEG, PNG, WebP, GIF, BMP, TIFF
    ARRAY = "array"  # .npy


class Upload(NamedTuple):
    """One image as it was sent."""

    kind: UploadKind
    data: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """One image of a batch as it was sent."""

    filename: str | None  # an archive's member by its whole path
    data: bytes | memoryview | ZippedFile

    def read(self, limits: UploadLimits) -> bytes:
        """Return the encoded image.

        Raises:
            ImageUndecodable: It does not come out of its archive whole.
            PayloadTooLarge: It is larger than an image may be.
        """
        if isinstance(self.data, ZippedFile):
            return self.data.read(max_bytes=limits.max_image_bytes)
        if len(self.data) > limits.max_image_bytes:
            raise PayloadTooLarge(
                "the image",
                limit=limits.max_image_bytes,
                unit="bytes",
                actual=len(self.data),
            )
        return bytes(self.data)


@dataclass(frozen=True, slots=True)
class BatchUpload:
    """Many images as they were sent: either parts or one array of frames."""

    parts: tuple[Part, ...] = ()
    array: bytes | None = None  # .npy; then there are no parts
    skipped: int = 0  # archive members that are no images: directories, hidden files, links


def read_image(body: bytes, content_type: str | None = None) -> Upload:
    """Take a whole body, or one part of a form, as an image.

    The bytes decide what it is: a declared type can only be refused, or promise an array.

    Args:
        body: All of it.
        content_type: As in the header, parameters included; None where there is none.

    Raises:
        UnsupportedMediaType: The type declares something that is no image.
        BadRequest: An array was declared and is not there.
    """
    is_array = body.startswith(ARRAY_MAGIC)
    media_type = content_type if content_type in _USUAL else _media_type(content_type)
    if media_type == _ARRAY and not is_array:
        raise BadRequest("the body is not an array in the .npy format")
    is_image = media_type.startswith("image/") or media_type in _UNTOLD or media_type == _ARRAY
    if not is_image:
        raise UnsupportedMediaType(media_type, accepted=IMAGE_MEDIA_TYPES)
    return Upload(UploadKind.ARRAY if is_array else UploadKind.ENCODED, body)


def read_batch(body: bytes, content_type: str | None, limits: UploadLimits) -> BatchUpload:
    """Take a whole body that is no form as a batch.

    Ten thousand archive members take tenths of a second to list: call it off the event loop.

    Args:
        body: All of it.
        content_type: As in the header; where it says nothing the bytes decide.
        limits: What archives are held to. Arrays are judged when they are decoded.

    Raises:
        UnsupportedMediaType: It is neither an archive nor an array.
        BadRequest: It is not what its type promises, or holds no image.
        PayloadTooLarge: It holds too many images, or too many bytes once unpacked.
    """
    media_type = _media_type(content_type)
    if media_type in _UNTOLD:
        media_type = _guess(body) or media_type
    if media_type in _ZIP:
        return _unpacked(read_zip(body, limits.max_images, limits.max_batch_bytes), limits)
    if media_type == _TAR:
        return _unpacked(read_tar(body, limits.max_images), limits)
    if media_type != _ARRAY:
        raise UnsupportedMediaType(media_type, accepted=BATCH_MEDIA_TYPES)
    if not body.startswith(ARRAY_MAGIC):
        raise BadRequest("the body is not an array in the .npy format")
    return BatchUpload(array=body)


def batch_of_files(
    files: Sequence[tuple[str | None, bytes]], limits: UploadLimits, *, skipped: int = 0
) -> BatchUpload:
    """Take the files of a form, names and contents, as a batch.

    Raises:
        BadRequest: There is none.
        PayloadTooLarge: There are too many.
    """
    parts = tuple(Part(filename, data) for filename, data in files)
    return _checked(BatchUpload(parts=parts, skipped=skipped), limits)


def _unpacked(archive: Archive, limits: UploadLimits) -> BatchUpload:
    parts = tuple(Part(member.path, member.content) for member in archive.members)
    return _checked(BatchUpload(parts=parts, skipped=archive.skipped), limits)


def _checked(batch: BatchUpload, limits: UploadLimits) -> BatchUpload:
    if not batch.parts:
        raise BadRequest(f"there is no image in the batch; {batch.skipped} members were skipped")
    if len(batch.parts) > limits.max_images:
        raise PayloadTooLarge(
            "the batch", limit=limits.max_images, unit="images", actual=len(batch.parts)
        )
    return batch


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()


def _guess(body: bytes) -> str | None:
    if body.startswith(ARRAY_MAGIC):
        return _ARRAY
    if body.startswith(_ZIP_MAGICS):
        return "application/zip"
    return _TAR if body[_TAR_MAGIC] == b"ustar" else None
