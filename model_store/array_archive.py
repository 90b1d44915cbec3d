"""Named arrays in one `.npz` that is only ever data: NumPy reads it, a hostile one costs nothing.

The members are stored, not deflated, so a file never unpacks to more than its own size. Headers are
matched against what NumPy writes and never evaluated; there is no path to pickle. Times are fixed:
equal arrays make equal bytes, hence equal digests.
"""

import io
import re
import struct
import zipfile
from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_SUFFIX: Final = ".npy"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can say
_READABLE: Final = 0o100644 << 16  # a plain file's mode, for who unpacks it
_ENCRYPTED: Final = 0x1
_MAGIC: Final = b"\x93NUMPY\x01\x00"
_PREAMBLE: Final = struct.Struct("<8sH")  # magic and version, length of the header
_HEADER: Final = re.compile(
    rb"\{'descr': '([<|][bif][1248])', 'fortran_order': False, "
    rb"'shape': \(([0-9, ]{0,100})\), \} *\n"
)

Array = NDArray[Any]


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Return the archive's bytes, which depend on the arrays alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(
                member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(name + _SUFFIX, date_time=_EPOCH)
            info.external_attr = _READABLE
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def unpack(raw: bytes, dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    """Return the arrays of an archive, read-only.

    Args:
        raw: The whole file.
        dtypes: The names that must be there, no others, and what each holds.

    Raises:
        ValueError: It is no archive, or a member is missing, strange, deflated, of another type
            or not as long as its header says.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            expected = {name + _SUFFIX for name in dtypes}
            if set(members) != expected or len(archive.infolist()) != len(expected):
                raise ValueError(f"expected the arrays {sorted(expected)}, found {sorted(members)}")
            contents = {n: _stored(archive, members[n + _SUFFIX], len(raw)) for n in dtypes}
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        OSError,
        OverflowError,
        struct.error,
    ) as error:  # whatever zipfile finds wrong with an archive
        raise ValueError(f"not a readable archive: {error}") from error
    return {name: _array(name, contents[name], dtype) for name, dtype in dtypes.items()}


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo, archive_bytes: int) -> bytes:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
        raise ValueError(f"{info.filename} is compressed or encrypted: expected it stored")
    if info.file_size != info.compress_size or info.file_size > archive_bytes:
        raise ValueError(
            f"{info.filename} claims {info.file_size} bytes from {info.compress_size} "
            f"in an archive of {archive_bytes}"
        )
    return archive.read(info)


def _array(name: str, content: bytes, dtype: np.dtype[Any]) -> Array:
    if len(content) < _PREAMBLE.size:
        raise ValueError(f"{name} has no header: {len(content)} bytes")
    magic, header_bytes = _PREAMBLE.unpack_from(content)
    start = _PREAMBLE.size + header_bytes
    header = _HEADER.fullmatch(content[_PREAMBLE.size : start])
    if magic != _MAGIC or header is None:
        raise ValueError(f"{name} has no header as NumPy writes it in version 1.0")
    described, axes = header[1].decode("ascii"), header[2].decode("ascii")
    if described != dtype.str:
        raise ValueError(f"{name} is of type {described!r}: expected {dtype.str!r}")
    shape = tuple(int(axis) for axis in axes.split(",") if axis.strip())
    expected_bytes = prod(shape) * dtype.itemsize
    if len(content) - start != expected_bytes:
        raise ValueError(
            f"{name} of shape {shape} needs {expected_bytes} bytes, found {len(content) - start}"
        )
    return np.frombuffer(content, dtype=dtype, offset=start).reshape(shape)
