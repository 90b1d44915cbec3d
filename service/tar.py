"""Where the members of an uncompressed tar lie: ustar, GNU long names and pax headers.

The standard library's reader recurses into chains of extended headers, backtracks over crafted pax
records and materialises sparse files; bodies come from strangers, and to find slices needs little.
Format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_BLOCK: Final = 512
_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 136)
_CHECKSUM: Final = slice(148, 156)
_KIND: Final = slice(156, 157)
_MAGIC: Final = slice(257, 263)
_PREFIX: Final = slice(345, 500)
_POSIX: Final = b"ustar\0"  # only then is there a prefix; GNU keeps times in its place
_BINARY_SIZE: Final = 0x80  # set in a size too large for octal digits

_FILES: Final = frozenset({b"0", b"\0", b"7"})
_WITHOUT_CONTENT: Final = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})  # whatever size they give
_LONG_NAME: Final = b"L"
_LONG_LINK: Final = b"K"
_PAX: Final = b"x"
_PAX_GLOBAL: Final = b"g"
_EXTENSIONS: Final = frozenset({_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL})
_MAX_EXTENDED_BYTES: Final = 2**16  # of a long name or a pax header; paths have 4096 at most


class TarMalformed(Exception):
    """The bytes do not follow the format."""


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One member: where its contents lie."""

    path: str
    is_file: bool  # else a directory, link, device or sparse file
    start: int  # byte offsets into the archive
    stop: int


def read_tar_entries(archive: bytes) -> Iterator[TarEntry]:
    """Yield the members in their order, up to the end mark or the end of the bytes.

    Raises:
        TarMalformed: A header is broken or a member ends past the end of the bytes.
    """
    at = 0
    extended: dict[bytes, bytes] = {}
    while any(header := archive[at : at + _BLOCK]):
        _check(header)
        kind = header[_KIND]
        start = at + _BLOCK
        stop = start + _size(header, extended)
        if stop > len(archive):
            raise TarMalformed("a member ends past the end of the archive")
        if kind in _EXTENSIONS:
            if stop - start > _MAX_EXTENDED_BYTES:
                raise TarMalformed("an extended header is too long")
            extended |= _extension(kind, archive[start:stop])
        else:
            path = _path(header, extended)
            # The oldest tars mark directories by their names alone.
            yield TarEntry(path, kind in _FILES and not path.endswith("/"), start, stop)
            extended = {}
        at = start + -(-(stop - start) // _BLOCK) * _BLOCK
    if at == 0:
        raise TarMalformed("it has no members")


def _check(header: bytes) -> None:
    if len(header) < _BLOCK:
        raise TarMalformed("it ends within a header")
    # The sum is taken as if its own field held spaces.
    summed = sum(header) - sum(header[_CHECKSUM]) + len(header[_CHECKSUM]) * ord(" ")
    if summed != _octal(header[_CHECKSUM]):
        raise TarMalformed("a header's checksum is wrong")


def _size(header: bytes, extended: Mapping[bytes, bytes]) -> int:
    field, kind = header[_SIZE], header[_KIND]
    if kind in _WITHOUT_CONTENT:
        return 0
    if kind not in _EXTENSIONS and b"size" in extended:
        return _decimal(extended[b"size"])
    if field[0] & _BINARY_SIZE:
        return int.from_bytes(field[1:])
    return _octal(field)


def _path(header: bytes, extended: Mapping[bytes, bytes]) -> str:
    path = extended.get(b"path")
    if path is None:
        path = header[_NAME].partition(b"\0")[0]
        prefix = header[_PREFIX].partition(b"\0")[0]
        if header[_MAGIC] == _POSIX and prefix:
            path = prefix + b"/" + path
    # Names are bytes to tar; what is no UTF-8 must still be writable as JSON.
    return path.decode("utf-8", "replace")


def _extension(kind: bytes, content: bytes) -> dict[bytes, bytes]:
    """Return what an extended header says of the member after it."""
    if kind == _LONG_NAME:
        return {b"path": content.partition(b"\0")[0]}
    if kind == _PAX:
        return _pax_records(content)
    return {}


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Read records: the length of all of it, a space, a key, "=", a value, a line feed."""
    records: dict[bytes, bytes] = {}
    while content:
        length = _decimal(content.partition(b" ")[0])
        record = content[:length]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) < length or not equals or not value.endswith(b"\n"):
            raise TarMalformed("a pax header is broken")
        records[key] = value[:-1]
        content = content[length:]
    return records


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0") or b"0"
    if not all(digit in b"01234567" for digit in digits):
        raise TarMalformed("a number in a header cannot be read")
    return int(digits, 8)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > len(str(2**64)):
        raise TarMalformed("a number in a pax header cannot be read")
    return int(digits)
