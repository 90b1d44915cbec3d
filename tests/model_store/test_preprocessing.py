import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model_store.preprocessing import fit, normalise, upright_rgb

ORIENTATION = 0x0112

Turn = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def random_rgb(*, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth_rgb(*, height: int, width: int) -> Image.Image:
    coarse = Image.fromarray(random_rgb(height=4, width=4))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def oriented(image: Image.Image, orientation: int, form: str) -> Image.Image:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    sink = io.BytesIO()
    image.save(sink, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    return Image.open(sink)


def test_rgb_is_left_as_it_is():
    pixels = random_rgb(height=5, width=7)

    picture = upright_rgb(Image.fromarray(pixels))

    np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        pytest.param(1, lambda p: p, id="upright"),
        pytest.param(2, lambda p: p[:, ::-1], id="mirrored"),
        pytest.param(3, lambda p: p[::-1, ::-1], id="upside-down"),
        pytest.param(4, lambda p: p[::-1], id="flipped"),
        pytest.param(5, lambda p: p.swapaxes(0, 1), id="transposed"),
        pytest.param(6, lambda p: np.rot90(p, -1), id="on-its-left"),
        pytest.param(7, lambda p: np.rot90(p, 2).swapaxes(0, 1), id="transversed"),
        pytest.param(8, np.rot90, id="on-its-right"),
        pytest.param(99, lambda p: p, id="no-such-orientation"),
    ],
)
def test_exif_orientation_is_applied_in_every_format_that_has_it(
    orientation: int, turned: Turn, form: str
):
    pixels = random_rgb(height=6, width=9)

    picture = upright_rgb(oriented(Image.fromarray(pixels), orientation, form))

    np.testing.assert_array_equal(np.asarray(picture), turned(pixels))


def test_broken_exif_leaves_the_picture_as_stored():
    image = Image.fromarray(random_rgb(height=3, width=4))
    image.info["exif"] = b"Exif\0\0MM\0"

    picture = upright_rgb(image)

    assert picture.size == (4, 3)


@given(level=st.integers(0, 255), mode=st.sampled_from(["I;16", "I;16B", "I"]))
def test_sixteen_bit_grey_of_257_times_a_byte_is_that_byte(level: int, mode: str):
    deep = Image.new(mode, (3, 2), level * 257)

    picture = upright_rgb(deep)

    assert picture.mode == "RGB"
    assert np.asarray(picture).tolist() == [[[level] * 3] * 3] * 2


def test_sixteen_bit_transparency_is_composed_over_mid_grey():
    sink = io.BytesIO()
    values = np.array([[0, 65535]], np.uint16)
    Image.fromarray(values).save(sink, "PNG", transparency=65535)

    picture = upright_rgb(Image.open(sink))

    assert np.asarray(picture)[0, :, 0].tolist() == [0, 128]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        pytest.param([0.0, 0.5, 1.0], [0, 128, 255], id="up-to-one"),
        pytest.param([0.0, 100.0, 255.0], [0, 100, 255], id="up-to-a-byte"),
        pytest.param([0.0, 257.0, 65535.0], [0, 1, 255], id="up-to-sixteen-bits"),
        pytest.param([-5.0, 0.0, 131070.0], [0, 0, 255], id="beyond"),
        pytest.param([np.nan, np.inf, 1.0], [0, 0, 255], id="not-finite"),
        pytest.param([0.0, 0.0, 0.0], [0, 0, 0], id="black"),
    ],
)
def test_floats_are_scaled_by_the_smallest_usual_white_point(
    values: list[float], levels: list[int]
):
    deep = Image.fromarray(np.array([values], np.float32))

    picture = upright_rgb(deep)

    assert np.asarray(picture)[0, :, 0].tolist() == levels


def test_integers_beyond_sixteen_bits_are_scaled_by_their_maximum():
    deep = Image.fromarray(np.array([[-1, 0, 2**30, 2**31 - 1]], np.int32))

    picture = upright_rgb(deep)

    assert np.asarray(picture)[0, :, 0].tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        pytest.param(Image.new("RGBA", (1, 1), (10, 20, 30, 0)), (128, 128, 128), id="clear"),
        pytest.param(Image.new("RGBA", (1, 1), (10, 20, 30, 255)), (10, 20, 30), id="opaque"),
        pytest.param(Image.new("RGBA", (1, 1), (255, 0, 255, 128)), (192, 64, 192), id="half"),
        pytest.param(Image.new("LA", (1, 1), (7, 0)), (128, 128, 128), id="grey-alpha"),
        pytest.param(Image.new("RGBa", (1, 1), (0, 0, 0, 0)), (128, 128, 128), id="premultiplied"),
        pytest.param(Image.new("L", (1, 1), 77), (77, 77, 77), id="grey"),
        pytest.param(Image.new("1", (1, 1), 1), (255, 255, 255), id="one-bit"),
        pytest.param(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), (0, 255, 255), id="cyan"),
        pytest.param(Image.new("CMYK", (1, 1), (0, 0, 0, 255)), (0, 0, 0), id="key"),
        pytest.param(Image.new("YCbCr", (1, 1), (90, 128, 128)), (90, 90, 90), id="ycbcr"),
    ],
)
def test_every_mode_becomes_rgb_over_mid_grey(image: Image.Image, colour: tuple[int, int, int]):
    picture = upright_rgb(image)

    assert picture.mode == "RGB"
    assert np.asarray(picture)[0, 0] == pytest.approx(colour, abs=1)  # Pillow's 8-bit rounding


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"], ids=["one-entry", "per-entry"])
def test_transparent_palette_entries_are_mid_grey(transparency: int | bytes):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 210, 220])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = transparency

    picture = upright_rgb(image)

    assert np.asarray(picture)[0].tolist() == [[10, 20, 30], [128, 128, 128]]


def test_the_transparent_colour_of_sixteen_bit_rgb_is_brought_to_bytes():
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (255, 255, 255))
    image.info["transparency"] = (10 * 257, 20 * 257, 30 * 257)

    picture = upright_rgb(image)

    assert np.asarray(picture)[0].tolist() == [[128, 128, 128], [255, 255, 255]]


def test_a_picture_of_the_right_size_is_not_resampled():
    pixels = random_rgb(height=32, width=32)

    np.testing.assert_array_equal(fit(Image.fromarray(pixels), height=32, width=32), pixels)


@pytest.mark.parametrize(
    ("height", "width"),
    [(96, 64), (64, 128), (16, 24), (8, 8), (32, 100)],
    ids=["portrait", "landscape", "small", "smaller", "as-high"],
)
def test_fitting_is_scaling_to_cover_and_then_a_centre_crop(height: int, width: int):
    image = smooth_rgb(height=height, width=width)
    scale = 32 / min(height, width)
    covering = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
    left, top = (covering.width - 32) // 2, (covering.height - 32) // 2
    expected = covering.crop((left, top, left + 32, top + 32))

    pixels = fit(image, height=32, width=32)

    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_scaling_down_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254

    pixels = fit(Image.fromarray(stripes), height=8, width=8)

    # Uneven only at the border, where the filter is cut.
    np.testing.assert_allclose(pixels, 127, atol=16)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (7, 300), (1000, 3), (65000, 1)], ids=lambda side: str(side)
)
def test_extreme_proportions_are_cropped_before_they_are_scaled(height: int, width: int):
    image = Image.new("RGB", (width, height), (1, 2, 3))

    pixels = fit(image, height=24, width=48)

    assert pixels.shape == (24, 48, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]


@settings(max_examples=50)
@given(
    image_size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    height=st.integers(1, 64),
    width=st.integers(1, 64),
)
def test_any_size_fits_any_network(image_size: tuple[int, int], height: int, width: int):
    image = Image.new("RGB", image_size, (9, 9, 9))

    pixels = fit(image, height=height, width=width)

    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == 9).all()


def test_normalising_centres_and_scales_each_channel_and_puts_it_first():
    pixels = random_rgb(height=4, width=5)[None].repeat(3, axis=0)
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)

    inputs = normalise(pixels, mean=mean, std=std)

    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert inputs.dtype == np.float32
    assert inputs.flags.c_contiguous
    np.testing.assert_allclose(inputs, expected, atol=1e-6)  # float32 of values up to 2


def test_normalising_nothing_gives_nothing():
    inputs = normalise(np.empty((0, 8, 8, 3), np.uint8), mean=(0, 0, 0), std=(1, 1, 1))

    assert inputs.shape == (0, 3, 8, 8)
