import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.arrays import view_frame, view_frames
from service.errors import BadRequest


def npy(array: NDArray[np.generic], version: tuple[int, int] | None = None) -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array(sink, array, version=version)
    return sink.getvalue()


def numbered(*shape: int) -> NDArray[np.uint8]:
    return (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)


def with_header(header: str, pixels: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + pixels


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=lambda version: str(version[0]))
def test_frames_of_every_version_are_viewed_without_a_copy(version: tuple[int, int]):
    frames = numbered(2, 3, 4, 3)
    body = npy(frames, version)

    viewed = view_frames(body)

    np.testing.assert_array_equal(viewed, frames)
    assert np.shares_memory(viewed, np.frombuffer(body, np.uint8))


def test_fortran_order_is_understood():
    frame = numbered(5, 4, 3)

    np.testing.assert_array_equal(view_frame(npy(np.asfortranarray(frame))), frame)


def test_a_header_that_was_read_before_says_nothing_of_the_bytes_behind_it():
    frame = numbered(6, 7, 3)

    for fill in (frame, frame + 1):
        np.testing.assert_array_equal(view_frame(npy(fill)), fill)
    with pytest.raises(BadRequest, match="125 bytes follow"):
        view_frame(npy(frame)[:-1])
    with pytest.raises(BadRequest, match="wanted is N×H×W×3"):
        view_frames(npy(frame))


def test_other_writers_quotes_and_spaces_are_understood():
    body = with_header('{"shape" : ( 1,1 ,3 ),"fortran_order":False,"descr":"uint8"}', b"abc")
    accepted = body.replace(b'"uint8"', b'"|u1"  ')

    assert view_frame(accepted).tolist() == [[[97, 98, 99]]]


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.zeros((8, 8, 3), np.float32), id="float"),
        pytest.param(np.zeros((8, 8, 3), np.int8), id="signed"),
        pytest.param(np.zeros((8, 8, 3), [("a", "u1")]), id="structured"),
        pytest.param(np.zeros((8, 8), np.uint8), id="no-channels"),
        pytest.param(np.zeros((8, 8, 4), np.uint8), id="four-channels"),
        pytest.param(np.zeros((2, 8, 8, 3), np.uint8), id="many-frames"),
        pytest.param(np.zeros((0, 8, 3), np.uint8), id="no-rows"),
        pytest.param(np.zeros((), np.uint8), id="scalar"),
    ],
)
def test_what_is_no_uint8_frame_is_a_bad_request(array: NDArray[np.generic]):
    with pytest.raises(BadRequest):
        view_frame(npy(array))


@pytest.mark.parametrize("shape", [(8, 8, 3), (0, 8, 8, 3), (1, 8, 0, 3)], ids=str)
def test_what_holds_no_frames_is_a_bad_request(shape: tuple[int, ...]):
    with pytest.raises(BadRequest):
        view_frames(npy(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(npy(numbered(4, 4, 3))[:-1], id="truncated"),
        pytest.param(npy(numbered(4, 4, 3)) + b"x", id="trailing"),
        pytest.param(npy(numbered(4, 4, 3))[:40], id="ends-within-its-header"),
        pytest.param(b"\x93NUMPY", id="magic-alone"),
        pytest.param(b"\x93NUMPY\2\0\1", id="ends-within-the-length"),
        pytest.param(b"\x93NUMPY\7\0" + bytes(100), id="unknown-version"),
        pytest.param(b"not an array at all", id="no-magic"),
        pytest.param(b"\x93NUMPY\2\0" + struct.pack("<I", 2**31) + bytes(99), id="huge-header"),
        pytest.param(with_header("{'descr': '|u1'}"), id="no-shape"),
        pytest.param(
            with_header("{'descr': '|u1', 'shape': (1, 1, 3)}", b"abc"), id="no-fortran-order"
        ),
        pytest.param(
            with_header(f"{{'descr': '|u1', 'shape': ({'9' * 99}, 1, 3)}}"), id="astronomic-axis"
        ),
        pytest.param(
            with_header(f"{{'descr': '|u1', 'shape': ({2**31}, {2**33}, 3)}}"), id="overflowing"
        ),
        pytest.param(with_header("{'descr': '|u1', 'shape': (1 2, 3)}"), id="no-commas"),
    ],
)
def test_a_broken_array_is_a_bad_request(body: bytes):
    with pytest.raises(BadRequest):
        view_frame(body)


@given(cut=st.integers(0, 200), at=st.integers(0, 199), value=st.integers(0, 255))
def test_a_damaged_array_is_read_or_a_bad_request(cut: int, at: int, value: int):
    body = bytearray(npy(numbered(2, 5, 3, 3)))
    body[at % len(body)] = value
    damaged = bytes(body[: len(body) - cut])

    try:
        frames = view_frames(damaged)
    except BadRequest:
        return

    assert frames.dtype == np.uint8
    assert frames.shape[-1] == 3
