import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store.array_archive import pack, unpack

ARRAYS = {"small": np.arange(6, dtype="<i8").reshape(2, 3), "flags": np.array([True, False])}
DTYPES = {name: array.dtype for name, array in ARRAYS.items()}
PACKED = pack(ARRAYS)


def _archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _npy(array: NDArray[Any], version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version, allow_pickle=True)
    return buffer.getvalue()


def test_arrays_come_back_as_they_were():
    found = unpack(PACKED, DTYPES)

    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_arrays_of_no_axis_and_of_no_element_come_back_as_they_were():
    odd = {"scalar": np.array(3.0), "empty": np.zeros((0, 2))}

    found = unpack(pack(odd), {name: array.dtype for name, array in odd.items()})

    assert found["scalar"] == 3.0
    assert found["empty"].shape == (0, 2)


def test_what_was_read_cannot_be_written_to():
    found = unpack(PACKED, DTYPES)["small"]

    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", "not a readable archive", id="empty"),
        pytest.param(b"\x93NUMPY", "not a readable archive", id="no-archive"),
        pytest.param(pack({"small": ARRAYS["small"]}), "expected the arrays", id="one-missing"),
        pytest.param(pack({**ARRAYS, "more": ARRAYS["small"]}), "found", id="one-too-many"),
        pytest.param(
            _archive({"array.npy": _npy(np.zeros(10**6))}, zipfile.ZIP_DEFLATED),
            "compressed or encrypted",
            id="deflated",
        ),
        pytest.param(_archive({"array.npy": b"\x93NUMPY"}), "no header: 6 bytes", id="short"),
        pytest.param(
            _archive({"array.npy": _npy(np.array([None], dtype=object))}), "no header", id="object"
        ),
        pytest.param(
            _archive({"array.npy": _npy(np.zeros(2), (2, 0))}), "no header", id="version-2"
        ),
        pytest.param(
            _archive({"array.npy": _npy(np.zeros((2, 2), order="F"))}), "no header", id="fortran"
        ),
        pytest.param(
            _archive({"array.npy": _npy(np.zeros(2, "<f4"))}),
            "type '<f4': expected '<f8'",
            id="type",
        ),
        pytest.param(
            _archive({"array.npy": _npy(np.zeros(2))[:-1]}), "needs 16 bytes, found 15", id="cut"
        ),
        pytest.param(
            _archive({"array.npy": _npy(np.zeros(2)).replace(b"(2,)", b"(9,)")}),
            "needs 72 bytes, found 16",
            id="longer-by-its-header",
        ),
    ],
)
def test_an_archive_of_something_else_is_refused(raw: bytes, message: str):
    dtypes = DTYPES if b"array.npy" not in raw else {"array": np.dtype("<f8")}

    with pytest.raises(ValueError, match=message):
        unpack(raw, dtypes)


def test_a_member_that_claims_more_than_the_archive_holds_is_refused():
    raw = _archive({"array.npy": _npy(np.zeros(2))})
    true_size = len(_npy(np.zeros(2))).to_bytes(4, "little")
    claimed = (2**30).to_bytes(4, "little")

    with pytest.raises(ValueError, match=f"claims {2**30} bytes"):
        unpack(raw.replace(true_size, claimed), {"array": np.dtype("<f8")})


@given(position=st.integers(0, len(PACKED) - 1), change=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_no_array(position: int, change: int):
    raw = bytearray(PACKED)
    raw[position] ^= change

    try:
        found = unpack(bytes(raw), DTYPES)
    except ValueError:
        return

    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


@given(length=st.integers(0, len(PACKED) - 1))
def test_a_truncated_archive_is_refused(length: int):
    with pytest.raises(ValueError, match=r"."):
        unpack(PACKED[:length], DTYPES)


@given(noise=st.binary(max_size=300))
def test_noise_in_place_of_an_array_is_refused(noise: bytes):
    with pytest.raises(ValueError, match=r"."):
        unpack(_archive({"array.npy": noise}), {"array": np.dtype("<f8")})
