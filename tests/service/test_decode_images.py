import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.errors import ImageUndecodable, PayloadTooLarge
from service.image_form import ImageForm, identify
from service.pixels import ImageSize, decode_image, opens_at_once, settle_pillow

SIZE = ImageSize(height=8, width=8)
LIMIT = 10_000


@pytest.fixture(autouse=True)
def settled_pillow():
    settle_pillow()


def picture(*, height: int = 8, width: int = 8) -> NDArray[np.uint8]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def sample(form: str) -> bytes:
    return encoded(Image.fromarray(picture()), form)


def decoded(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, size=SIZE, max_pixels=LIMIT)


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_with(chunks: bytes) -> bytes:
    """Return a PNG with chunks between its header and its pixels."""
    plain = sample("PNG")
    return plain[:33] + chunks + plain[33:]


def jpeg_with(segments: bytes) -> bytes:
    """Return a JPEG with segments right after its start."""
    plain = sample("JPEG")
    return plain[:2] + b"\xff\xfe\x00\x02" + segments + plain[2:]


def gif_with(blocks: bytes, *, frame: tuple[int, int, int, int] = (0, 0, 1, 1)) -> bytes:
    """Return a GIF of one frame, a single pixel's, with blocks before it."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
    return screen + blocks + b"\x2c" + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x4c\x01\x00;"


def tiff_of(
    entries: list[tuple[int, int, int, int]], data: bytes = b"", *, order: str = "<"
) -> bytes:
    """Return a TIFF of one directory; an entry is tag, type, count, value."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    fields = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return head + fields + struct.pack(order + "I", 0) + data


def bmp_of(width: int, height: int, rows: bytes, *, compression: int) -> bytes:
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(rows), 0, 0, 256, 0
    )
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(1024) + rows


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_pixels_that_went_in(form: str):
    options = {"lossless": True} if form == "WEBP" else {}

    pixels = decoded(encoded(Image.fromarray(picture()), form, **options))

    np.testing.assert_array_equal(pixels, picture())


@pytest.mark.parametrize(
    ("form", "options"),
    [
        pytest.param("JPEG", {}, id="jpeg"),
        pytest.param("JPEG", {"progressive": True}, id="progressive"),
        pytest.param("WEBP", {}, id="webp"),
        pytest.param("GIF", {}, id="gif"),
    ],
)
def test_lossy_formats_give_about_the_pixels_that_went_in(form: str, options: dict[str, object]):
    image = Image.new("RGB", (8, 8), (200, 100, 50))

    pixels = decoded(encoded(image, form, **options))

    np.testing.assert_allclose(pixels, np.asarray(image), atol=4)


def test_cmyk_jpegs_are_read_as_adobe_writes_them():
    pixels = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))

    np.testing.assert_allclose(pixels, np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=4)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_picture_of_many_is_meant(form: str):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")

    pixels = decoded(encoded(first, form, save_all=True, append_images=[second]))

    np.testing.assert_allclose(pixels, np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=4)


@pytest.mark.parametrize("form", list(ImageForm))
def test_the_bytes_tell_the_format(form: ImageForm):
    assert identify(sample(form)) is form


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not an image", id="text"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(encoded(Image.new("RGB", (8, 8)), "PPM"), id="ppm"),
        pytest.param(encoded(Image.new("RGB", (8, 8)), "ICO"), id="ico"),
        pytest.param(encoded(Image.new("RGB", (8, 8)), "TGA"), id="tga"),
        pytest.param(b"RIFF\x10\0\0\0WAVE" + bytes(20), id="wav"),
    ],
)
def test_other_formats_are_undecodable(data: bytes):
    with pytest.raises(ImageUndecodable):
        decoded(data)


@pytest.mark.parametrize("form", list(ImageForm))
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.7], ids=lambda kept: f"{kept:.0%}")
def test_truncated_images_are_undecodable(form: ImageForm, kept: float):
    data = sample(form)

    with pytest.raises(ImageUndecodable):
        decoded(data[: int(len(data) * kept)])


@pytest.mark.parametrize("form", list(ImageForm))
def test_too_many_pixels_are_refused_by_the_header(form: ImageForm):
    image = Image.new("RGB", (200, 51))

    with pytest.raises(PayloadTooLarge) as refused:
        decoded(encoded(image, form))

    assert (refused.value.limit, refused.value.unit) == (0.01, "megapixels")
    assert refused.value.actual == pytest.approx(0.0102)


@pytest.mark.parametrize("form", list(ImageForm))
def test_exactly_as_many_pixels_as_allowed_are_decoded(form: ImageForm):
    pixels = decoded(encoded(Image.new("RGB", (200, 50)), form))

    assert pixels.shape == (8, 8, 3)


def test_pillows_own_limit_does_not_stand_in_the_way_of_a_higher_one():
    settle_pillow()

    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\xff" * 6, id="webp-extended"),
        pytest.param(b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\xff\xff\xff\xff", id="webp-lossless"),
        pytest.param(b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + b"\xff" * 4, id="webp-lossy"),
        pytest.param(gif_with(b"", frame=(0, 0, 65535, 65535)), id="gif-frame"),
        pytest.param(gif_with(b"", frame=(65535, 65535, 1, 1)), id="gif-frame-far-out"),
        pytest.param(tiff_of([(256, 4, 1, 8), (257, 4, 1, 2**31)]), id="tiff"),
        pytest.param(tiff_of([(322, 4, 1, 26_000), (323, 4, 1, 26_000)]), id="tiff-tile"),
        pytest.param(
            tiff_of([(256, 3, 1, 60_000 << 16), (257, 3, 1, 9 << 16)], order=">"),
            id="tiff-big-endian",
        ),
        pytest.param(
            b"II\x2b\0\x08\0\0\0" + struct.pack("<QQ", 16, 2)
            + struct.pack("<HHQQ", 322, 16, 1, 2**33) + struct.pack("<HHQQ", 323, 4, 1, 8),
            id="bigtiff-tile",
        ),
    ],
)  # fmt: skip
def test_whatever_a_header_makes_a_reader_allocate_is_refused_before_it_does(data: bytes):
    with pytest.raises(PayloadTooLarge):
        decoded(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg_with(bytes(2**16 + 100)), id="jpeg-junk"),
        pytest.param(jpeg_with(b"\xff" * (2**16 + 100)), id="jpeg-padding"),
        pytest.param(jpeg_with(b"\xff\x00" * 2**16), id="jpeg-escapes"),
        pytest.param(jpeg_with(b"\xff\xfe\x00\x02" * 5000), id="jpeg-segments"),
        pytest.param(jpeg_with(b"\xff\xf0" * 5000), id="jpeg-bare-markers"),
        pytest.param(sample("JPEG")[:-2] + b"\xff\xda" * 300, id="jpeg-scans"),
        pytest.param(png_with(chunk(b"abCd", b"") * (2**16 + 1)), id="png-chunks"),
        pytest.param(
            png_with(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000))) * 70),
            id="png-inflating-text",
        ),
        pytest.param(
            png_with(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000)))),
            id="png-inflating-more",
        ),
        pytest.param(gif_with(b"\x21\xfe" + b"\1a" * 40_000 + b"\0"), id="gif-blocks"),
        pytest.param(gif_with(b"\x21\xfe\0" * 40_000), id="gif-empty-comments"),
        pytest.param(gif_with(bytes(1000)), id="gif-zeros"),
        pytest.param(tiff_of([(273, 4, 100_000, 8)]), id="tiff-strips"),
        pytest.param(tiff_of([(324, 4, 100_000, 8)]), id="tiff-tiles"),
        pytest.param(tiff_of([(k, 4, 1, 8) for k in range(5000)]), id="tiff-entries"),
        pytest.param(tiff_of([(256, 4, 1, 8)] * 3)[:30], id="tiff-ends-in-its-directory"),
        pytest.param(b"II\x2a\0\xff\xff\xff\xff", id="tiff-directory-outside"),
        pytest.param(b"II\x2b\0\x08\0\0\0" + b"\xff" * 8, id="bigtiff-directory-outside"),
        pytest.param(tiff_of([(256, 12, 1, 8)]), id="tiff-width-of-no-integer"),
        pytest.param(tiff_of([(256, 16, 1, 8)]), id="tiff-width-too-wide-for-its-field"),
        pytest.param(bmp_of(80, 80, b"\0\0" * 2**20, compression=1), id="bmp-runs-of-nothing"),
        pytest.param(bmp_of(2000, -2000, b"\1\1", compression=2), id="bmp-runs-of-many-pixels"),
    ],
)
def test_images_made_to_keep_a_reader_busy_are_undecodable(data: bytes):
    with pytest.raises(ImageUndecodable):
        decoded(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg_with(bytes(1000)), id="jpeg-junk"),
        pytest.param(jpeg_with(b"\xff\xfe\x00\x0cbe greeted" * 100), id="jpeg-comments"),
        pytest.param(png_with(chunk(b"tEXt", b"k\0v") * 1000), id="png-texts"),
        pytest.param(png_with(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"v" * 99))), id="png-ztxt"),
        pytest.param(gif_with(b"\x21\xfe\0\x21\xfe\5hello\0"), id="gif-comments"),
        pytest.param(gif_with(b"\x21\xf9\4\0\0\0\0\0"), id="gif-control"),
        pytest.param(bmp_of(8, 8, b"\x08\1\0\0" * 8 + b"\0\1", compression=1), id="bmp-runs"),
        pytest.param(sample("JPEG") + sample("JPEG"), id="two-jpegs"),
    ],
)
def test_odd_but_harmless_images_are_decoded(data: bytes):
    assert decoded(data).shape == (8, 8, 3)


def test_pillows_remarks_stay_out_of_the_log_and_never_become_errors():
    exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x09\0" + b"\x12\x01\x02\0\xff\0\0\0\xff\xff\0\0" * 2
    broken = encoded(Image.fromarray(picture()), "JPEG", exif=exif)

    with warnings.catch_warnings(record=True) as caught:
        settle_pillow()
        pixels = decoded(broken)

    assert pixels.shape == (8, 8, 3)
    assert not caught


def test_a_remark_that_the_process_makes_an_error_of_is_the_images_error():
    exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x09\0" + b"\x12\x01\x02\0\xff\0\0\0\xff\xff\0\0" * 2
    broken = encoded(Image.fromarray(picture()), "JPEG", exif=exif)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageUndecodable):
            decoded(broken)


@pytest.mark.parametrize(
    ("data", "is_light"),
    [
        pytest.param(sample("PNG"), True, id="png"),
        pytest.param(sample("JPEG"), True, id="jpeg"),
        pytest.param(sample("TIFF"), False, id="tiff"),
        pytest.param(sample("GIF"), False, id="gif"),
        pytest.param(png_with(chunk(b"zTXt", b"k\0\0")), False, id="png-that-inflates"),
        pytest.param(jpeg_with(bytes(20_000)), False, id="large-body"),
    ],
)
def test_only_headers_that_cannot_cost_much_are_read_at_once(data: bytes, is_light: bool):
    assert opens_at_once(data) is is_light
