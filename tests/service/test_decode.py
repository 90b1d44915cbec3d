import io
import threading
import zipfile

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.decode import Decoder, ImageSize
from service.errors import BadRequest, ImageUndecodable, Overloaded, PayloadTooLarge, ShuttingDown
from service.uploads import BatchUpload, UploadLimits, batch_of_files, read_batch, read_image

SIZE = ImageSize(height=16, width=12)
LIMITS = UploadLimits(max_pixels=40_000, max_images=20, max_image_bytes=100_000)


@pytest.fixture
def decoder():
    made = Decoder(LIMITS)
    yield made
    made.close()


def picture(seed: int = 0, *, height: int = 16, width: int = 12) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: NDArray[np.uint8], form: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, form)
    return sink.getvalue()


def npy(array: NDArray[np.generic]) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
async def test_an_image_of_the_networks_size_is_decoded_exactly(decoder: Decoder, form: str):
    pixels = await decoder.decode(read_image(encoded(picture(), form)), size=SIZE)

    np.testing.assert_array_equal(pixels, picture())


@pytest.mark.parametrize("height", [40, 65, 150], ids=["tiny", "light", "large"])
async def test_other_sizes_are_fitted_wherever_they_are_decoded(decoder: Decoder, height: int):
    pixels = await decoder.decode(read_image(encoded(picture(height=height, width=60))), size=SIZE)

    assert pixels.shape == (16, 12, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("height", [40, 65, 150], ids=["tiny", "light", "large"])
async def test_what_decoding_took_of_a_processor_is_told(decoder: Decoder, height: int):
    told: list[float] = []

    await decoder.decode(
        read_image(encoded(picture(height=height, width=60))), size=SIZE, worked=told.append
    )

    assert sum(told) > 0


async def test_what_broken_images_of_a_batch_took_is_told_too(decoder: Decoder):
    told: list[float] = []
    files = [("a.png", encoded(picture())), ("b.png", encoded(picture())[:-40])]

    await decoder.decode_batch(batch_of_files(files, LIMITS), size=SIZE, worked=told.append)

    assert len(told) == 2


async def test_tiny_images_need_no_pool():
    decoder = Decoder(LIMITS, max_waiting=0)

    pixels = await decoder.decode(read_image(encoded(picture())), size=SIZE)

    np.testing.assert_array_equal(pixels, picture())
    with pytest.raises(Overloaded):
        await decoder.decode(read_image(encoded(picture(height=65))), size=SIZE)


async def test_large_images_are_decoded_beside_the_event_loop(decoder: Decoder):
    threads: list[threading.Thread] = []

    await decoder.decode(
        read_image(encoded(picture(height=150, width=150))),
        size=SIZE,
        worked=lambda _: threads.append(threading.current_thread()),
    )

    assert threading.current_thread() not in threads
    assert len(threads) == 1
    assert decoder.waiting == 0
    assert decoder.retry_after_s() > 0


@pytest.mark.parametrize(
    "body",
    [b"", b"junk", encoded(picture())[:200], encoded(picture(height=150))[:2000]],
    ids=["empty", "junk", "truncated", "truncated-large"],
)
async def test_broken_images_are_undecodable(decoder: Decoder, body: bytes):
    with pytest.raises(ImageUndecodable):
        await decoder.decode(read_image(body), size=SIZE)


async def test_images_of_too_many_pixels_are_too_large(decoder: Decoder):
    with pytest.raises(PayloadTooLarge):
        await decoder.decode(read_image(encoded(picture(height=201, width=200))), size=SIZE)


async def test_a_frame_that_fits_is_not_copied(decoder: Decoder):
    body = npy(picture())

    pixels = await decoder.decode(read_image(body), size=SIZE)

    np.testing.assert_array_equal(pixels, picture())
    assert np.shares_memory(pixels, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize(("height", "width"), [(30, 40), (100, 90)], ids=["tiny", "large"])
async def test_a_frame_of_another_size_is_fitted_like_an_image(
    decoder: Decoder, height: int, width: int
):
    frame = picture(height=height, width=width)

    as_array = await decoder.decode(read_image(npy(frame)), size=SIZE)
    as_image = await decoder.decode(read_image(encoded(frame)), size=SIZE)

    np.testing.assert_array_equal(as_array, as_image)


async def test_a_frame_of_too_many_pixels_is_too_large(decoder: Decoder):
    with pytest.raises(PayloadTooLarge):
        await decoder.decode(read_image(npy(picture(height=201, width=200))), size=SIZE)


async def test_a_broken_frame_is_a_bad_request(decoder: Decoder):
    with pytest.raises(BadRequest):
        await decoder.decode(read_image(npy(picture())[:-1]), size=SIZE)


async def test_a_batch_keeps_what_can_be_decoded_in_order(decoder: Decoder):
    oversized = encoded(picture(height=201, width=200))
    heavy = bytes(100_001)
    files = [encoded(picture(0)), b"broken", oversized, encoded(picture(1)), heavy]

    batch = await decoder.decode_batch(
        batch_of_files([(None, data) for data in files], LIMITS), size=SIZE
    )

    np.testing.assert_array_equal(batch.pixels, np.stack([picture(0), picture(1)]))
    assert [type(outcome) for outcome in batch.outcomes] == [
        int,
        ImageUndecodable,
        PayloadTooLarge,
        int,
        PayloadTooLarge,
    ]
    assert (batch.outcomes[0], batch.outcomes[3]) == (0, 1)


async def test_a_zips_images_are_decoded_from_where_they_lie(decoder: Decoder):
    body = zipped({"a.png": encoded(picture(0)), "d/b.png": encoded(picture(1)), "t.txt": b"x"})

    batch = await decoder.decode_batch(read_batch(body, "application/zip", LIMITS), size=SIZE)

    np.testing.assert_array_equal(batch.pixels, np.stack([picture(0), picture(1)]))
    assert batch.outcomes[:2] == (0, 1)
    assert isinstance(batch.outcomes[2], ImageUndecodable)


async def test_a_batch_of_nothing_decodable_has_no_pixels(decoder: Decoder):
    batch = await decoder.decode_batch(batch_of_files([(None, b"x")], LIMITS), size=SIZE)

    assert batch.pixels.shape == (0, 16, 12, 3)


async def test_frames_that_fit_are_not_copied(decoder: Decoder):
    frames = np.stack([picture(k) for k in range(5)])
    body = npy(frames)

    batch = await decoder.decode_batch(BatchUpload(array=body), size=SIZE)

    np.testing.assert_array_equal(batch.pixels, frames)
    assert np.shares_memory(batch.pixels, np.frombuffer(body, np.uint8))
    assert batch.outcomes == (0, 1, 2, 3, 4)


async def test_frames_of_another_size_are_fitted(decoder: Decoder):
    frames = np.stack([picture(k, height=30, width=20) for k in range(3)])

    batch = await decoder.decode_batch(BatchUpload(array=npy(frames)), size=SIZE)

    one = await decoder.decode(read_image(encoded(frames[1])), size=SIZE)
    assert batch.pixels.shape == (3, 16, 12, 3)
    np.testing.assert_array_equal(batch.pixels[1], one)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((21, 1, 1, 3), np.uint8), np.zeros((1, 201, 200, 3), np.uint8)],
    ids=["too-many", "too-large"],
)
async def test_frames_beyond_the_limits_are_too_large(decoder: Decoder, frames: NDArray[np.uint8]):
    with pytest.raises(PayloadTooLarge):
        await decoder.decode_batch(BatchUpload(array=npy(frames)), size=SIZE)


async def test_a_batch_of_too_many_parts_is_too_large(decoder: Decoder):
    batch = batch_of_files([(None, b"x")] * 21, UploadLimits())

    with pytest.raises(PayloadTooLarge):
        await decoder.decode_batch(batch, size=SIZE)


async def test_a_closed_decoder_says_so(decoder: Decoder):
    decoder.close()

    with pytest.raises(ShuttingDown):
        await decoder.decode(read_image(encoded(picture(height=150))), size=SIZE)
