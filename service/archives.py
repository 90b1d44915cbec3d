"""Images in a zip or tar, found without unpacking anything.

Names are listed at once; a zip's members are inflated one by one when they are decoded, never past
what each declares, and a tar's are slices of the body. Compressed tars are refused: their size is
not known before they are unpacked.
"""

import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from service.errors import BadRequest, ImageUndecodable, PayloadTooLarge
from service.tar import TarEntry, TarMalformed, read_tar_entries

# A zip made on a Mac names every image twice and directories besides; more is not a batch of
# images, and listing millions of members would take minutes and gigabytes.
_MEMBERS_PER_IMAGE: Final = 4
_MIN_MEMBERS: Final = 1000
_DIRECTORY_ENTRY: Final = b"PK\x01\x02"  # begins every entry of a zip's directory
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_IS_ENCRYPTED: Final = 0x1  # of a zip member's flags
_COMPRESSED_MAGICS: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_MACOSX: Final = "__MACOSX"

_ZIP_FAILURES: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,  # a version or compression that zipfile does not read
    RuntimeError,  # encrypted
    EOFError,
    OSError,
    OverflowError,
    IndexError,
    ValueError,  # offsets outside the file; names that are not UTF-8
)


@dataclass(frozen=True, slots=True)
class ZippedFile:
    """One member of a zip, still compressed."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def read(self, *, max_bytes: int) -> bytes:
        """Inflate it, in memory no larger than what it declares.

        Raises:
            ImageUndecodable: It is encrypted, compressed in a way not read here, or corrupt.
            PayloadTooLarge: It declares more than `max_bytes`.
        """
        info = self.info
        if info.file_size > max_bytes:
            raise PayloadTooLarge("the image", limit=max_bytes, unit="bytes", actual=info.file_size)
        if info.flag_bits & _IS_ENCRYPTED:
            raise ImageUndecodable("it is encrypted")
        # Other methods can inflate without bound, whatever size is asked of them.
        if info.compress_type not in _METHODS:
            raise ImageUndecodable("it is compressed by a method other than deflate")
        try:
            with self.archive.open(info) as member:
                return member.read(info.file_size)
        except _ZIP_FAILURES as failure:
            raise ImageUndecodable("it is corrupt in the archive") from failure


@dataclass(frozen=True, slots=True)
class Member:
    """One image of an archive."""

    path: str  # the whole of it, as the archive has it
    content: memoryview | ZippedFile


@dataclass(frozen=True, slots=True)
class Archive:
    """The images of an archive, in its order."""

    members: tuple[Member, ...]
    skipped: int  # directories, hidden files, links, devices, what a Mac adds


def read_zip(body: bytes, max_images: int, max_total_bytes: int) -> Archive:
    """List the images of a zip.

    Raises:
        BadRequest: It is none, or its directory is broken.
        PayloadTooLarge: It has too many members, or they are too large together.
    """
    # Counted before zipfile makes an object of each: it believes the directory's own length.
    _limit_members(body.count(_DIRECTORY_ENTRY), max_images)
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
    except _ZIP_FAILURES as failure:
        raise BadRequest("the body is not a zip archive that can be read") from failure
    images = [info for info in archive.infolist() if _is_zipped_image(info)]
    _limit_images(len(images), max_images)
    total = sum(info.file_size for info in images)
    if total > max_total_bytes:
        raise PayloadTooLarge(
            "the batch, unpacked,", limit=max_total_bytes, unit="bytes", actual=total
        )
    return Archive(
        tuple(Member(info.filename, ZippedFile(archive, info)) for info in images),
        skipped=len(archive.infolist()) - len(images),
    )


def read_tar(body: bytes, max_images: int) -> Archive:
    """List the images of an uncompressed tar.

    Raises:
        BadRequest: It is none, or ends within a member.
        PayloadTooLarge: It has too many members.
    """
    if body.startswith(_COMPRESSED_MAGICS):
        raise BadRequest("the tar archive is compressed: send it uncompressed, or send a zip")
    images: list[TarEntry] = []
    seen = 0
    try:
        for entry in read_tar_entries(body):
            seen += 1
            _limit_members(seen, max_images)
            if entry.is_file and not _is_hidden(entry.path):
                images.append(entry)
    except TarMalformed as failure:
        raise BadRequest(f"the body is not a tar archive that can be read: {failure}") from failure
    _limit_images(len(images), max_images)
    return Archive(
        tuple(Member(entry.path, memoryview(body)[entry.start : entry.stop]) for entry in images),
        skipped=seen - len(images),
    )


def _is_zipped_image(info: zipfile.ZipInfo) -> bool:
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    return not info.is_dir() and not is_link and not _is_hidden(info.filename)


def _is_hidden(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return _MACOSX in parts or any(part.startswith(".") and part != ".." for part in parts)


def _limit_members(seen: int, max_images: int) -> None:
    limit = max(_MIN_MEMBERS, _MEMBERS_PER_IMAGE * max_images)
    if seen > limit:
        raise PayloadTooLarge("the archive", limit=limit, unit="members", actual=seen)


def _limit_images(images: int, max_images: int) -> None:
    if images > max_images:
        raise PayloadTooLarge("the batch", limit=max_images, unit="images", actual=images)
