import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import ImageUndecodable, PayloadTooLarge
from service.pixels import ImageSize, decode_image, settle_pillow

SIZE = ImageSize(height=5, width=6)
MAGICS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II\x2a\0",
    b"MM\0\x2b",
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"RIFF\0\0\0\0WEBPVP8X",
]
WITH_FIXTURE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def settled_pillow():
    settle_pillow()


def encoded(mode: str, form: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(sink, form, exif=exif, **options)
    return sink.getvalue()


def decode_or_refuse(data: bytes) -> None:
    try:
        pixels = decode_image(data, size=SIZE, max_pixels=1_000_000)
    except (ImageUndecodable, PayloadTooLarge):
        return
    assert pixels.shape == (5, 6, 3)
    assert pixels.dtype == np.uint8


@WITH_FIXTURE
@given(magic=st.sampled_from(MAGICS), rest=st.binary(max_size=300))
def test_random_bytes_are_decoded_or_refused(magic: bytes, rest: bytes):
    decode_or_refuse(magic + rest)


@WITH_FIXTURE
@given(
    flips=st.lists(st.tuples(st.integers(0, 2**12), st.integers(0, 255)), min_size=1, max_size=6),
    in_header=st.booleans(),
    cut=st.one_of(st.just(0), st.integers(0, 400)),
)
@pytest.mark.parametrize(
    "image",
    [
        pytest.param(encoded("RGB", "JPEG"), id="jpeg"),
        pytest.param(encoded("RGB", "JPEG", progressive=True), id="progressive"),
        pytest.param(encoded("CMYK", "JPEG"), id="cmyk"),
        pytest.param(encoded("RGBA", "PNG"), id="png"),
        pytest.param(encoded("P", "PNG", transparency=3), id="palette"),
        pytest.param(encoded("I;16", "PNG"), id="sixteen-bit"),
        pytest.param(encoded("RGB", "WEBP"), id="webp"),
        pytest.param(encoded("RGBA", "WEBP", lossless=True), id="webp-lossless"),
        pytest.param(encoded("P", "GIF", transparency=1), id="gif"),
        pytest.param(encoded("P", "BMP"), id="bmp"),
        pytest.param(encoded("RGB", "TIFF"), id="tiff"),
        pytest.param(encoded("F", "TIFF", compression="tiff_deflate"), id="tiff-float"),
        pytest.param(encoded("LA", "TIFF", compression="tiff_lzw"), id="tiff-lzw"),
        pytest.param(encoded("1", "TIFF", compression="group4"), id="tiff-fax"),
    ],
)
def test_damaged_images_are_decoded_or_refused(
    image: bytes, flips: list[tuple[int, int]], in_header: bool, cut: int
):
    damaged = bytearray(image)
    reach = min(len(damaged), 128) if in_header else len(damaged)
    for at, value in flips:
        damaged[at % reach] = value

    decode_or_refuse(bytes(damaged[: len(damaged) - cut]))
