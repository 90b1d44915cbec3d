import io
import tarfile
import zipfile

import numpy as np
import pytest

from service.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType
from service.uploads import (
    Part,
    UploadKind,
    UploadLimits,
    batch_of_files,
    read_batch,
    read_image,
)

LIMITS = UploadLimits()


def npy(shape: tuple[int, ...] = (2, 4, 4, 3)) -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.zeros(shape, np.uint8))
    return sink.getvalue()


def zipped(*names: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return sink.getvalue()


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "image/jpeg",
        "image/*",
        "IMAGE/PNG; q=1",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
    ],
)
def test_whatever_may_be_an_image_is_taken_as_one(content_type: str | None):
    upload = read_image(b"bytes", content_type)

    assert (upload.kind, upload.data) == (UploadKind.ENCODED, b"bytes")


@pytest.mark.parametrize("content_type", [None, "application/x-npy", "image/png"])
def test_an_array_is_known_by_its_bytes(content_type: str | None):
    assert read_image(npy(), content_type).kind is UploadKind.ARRAY


def test_a_promised_array_that_is_none_is_a_bad_request():
    with pytest.raises(BadRequest):
        read_image(b"\x89PNG", "application/x-npy")
    with pytest.raises(BadRequest):
        read_batch(b"\x89PNG", "application/x-npy", LIMITS)


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "multipart/mixed"])
def test_what_cannot_be_an_image_is_an_unsupported_media_type(content_type: str | None):
    with pytest.raises(UnsupportedMediaType) as refused:
        read_image(b"x", content_type)
    with pytest.raises(UnsupportedMediaType):
        read_batch(b"x", content_type, LIMITS)

    assert refused.value.media_type == content_type


@pytest.mark.parametrize("content_type", ["application/x-npy", None, "application/octet-stream"])
def test_an_array_is_a_batch_of_its_frames(content_type: str | None):
    batch = read_batch(npy(), content_type, LIMITS)

    assert (batch.array, batch.parts) == (npy(), ())


@pytest.mark.parametrize(
    "content_type",
    ["application/zip", "application/x-zip-compressed", None, "application/zip; a=b"],
)
def test_a_zip_is_a_batch_of_its_members(content_type: str | None):
    batch = read_batch(zipped("a.png", "b/", "b/c.png"), content_type, LIMITS)

    assert [part.filename for part in batch.parts] == ["a.png", "b/c.png"]
    assert batch.skipped == 1


def test_bytes_that_say_nothing_are_no_batch():
    with pytest.raises(UnsupportedMediaType):
        read_batch(b"\x89PNG", None, LIMITS)


def test_a_tar_is_known_by_its_bytes():
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))

    for content_type in (None, "application/x-tar"):
        batch = read_batch(sink.getvalue(), content_type, LIMITS)

        assert [(part.filename, part.read(LIMITS)) for part in batch.parts] == [("a.png", b"abc")]


@pytest.mark.parametrize("body", [zipped(), zipped("only/", ".hidden")], ids=["empty", "skipped"])
def test_an_archive_without_an_image_is_a_bad_request(body: bytes):
    with pytest.raises(BadRequest):
        read_batch(body, "application/zip", LIMITS)


def test_the_files_of_a_form_keep_their_names_and_order():
    batch = batch_of_files([("b.png", b"1"), (None, b"2")], LIMITS, skipped=3)

    assert [(part.filename, part.read(LIMITS)) for part in batch.parts] == [
        ("b.png", b"1"),
        (None, b"2"),
    ]
    assert batch.skipped == 3


def test_a_form_without_files_is_a_bad_request():
    with pytest.raises(BadRequest):
        batch_of_files([], LIMITS)


def test_a_form_of_too_many_files_is_too_large():
    with pytest.raises(PayloadTooLarge) as refused:
        batch_of_files([(None, b"")] * 3, UploadLimits(max_images=2))

    assert (refused.value.limit, refused.value.unit, refused.value.actual) == (2, "images", 3)


def test_a_part_larger_than_an_image_may_be_is_too_large():
    limits = UploadLimits(max_image_bytes=3)

    assert Part("a.png", b"123").read(limits) == b"123"
    with pytest.raises(PayloadTooLarge):
        Part("a.png", b"1234").read(limits)
