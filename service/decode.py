"""Uploads → pixels beside the event loop.

A tiny image is decoded where it is asked for, since a hop to a thread and back costs more; frames
that fit are not even copied. All else takes turns in a pool of its own (`turns`), whose bounded
queue admission counts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_store.preprocessing import fit
from service.arrays import view_frame, view_frames
from service.errors import PayloadTooLarge, RequestRejected
from service.image_form import limit_pixels
from service.pixels import (
    ImageSize,
    decode_image,
    load_pixels,
    loads_at_once,
    open_image,
    opens_at_once,
    settle_pillow,
)
from service.turns import TurnPool
from service.uploads import BatchUpload, Upload, UploadKind, UploadLimits

__all__ = ["DecodedBatch", "Decoder", "ImageSize", "PartOutcome", "Pixels"]

Pixels = NDArray[np.uint8]
PartOutcome = int | RequestRejected
Worked = Callable[[float], None]  # told the processor's seconds, in whichever thread worked
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """The pixels of a batch's images, and which is which."""

    pixels: Pixels  # (M, H, W, 3): what could be decoded, in the order sent; not to be written to
    outcomes: tuple[PartOutcome, ...]  # by image sent: its row of `pixels`, or why it has none


@dataclass(slots=True)
class _Rows:
    """Pixels filled from the front; owned by whichever thread has the request's turn."""

    pixels: Pixels
    filled: int = 0

    def add(self, picture: Pixels) -> int:
        """Store a picture and return its row."""
        row = self.filled
        self.pixels[row] = picture
        self.filled += 1
        return row


class Decoder:
    """Decodes for everyone; owned by the event loop it is called from."""

    def __init__(
        self,
        limits: UploadLimits,
        *,
        num_threads: int = 1,
        max_waiting: int = 64,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        settle_pillow()
        self._limits = limits
        self._pool = TurnPool(num_threads=num_threads, max_waiting=max_waiting, now=now)

    @property
    def waiting(self) -> int:
        """Requests in the pool or queueing for it."""
        return self._pool.waiting

    def retry_after_s(self) -> float:
        """Return when the present backlog will have been decoded, by what images took so far."""
        return self._pool.retry_after_s()

    def backlog_s(self) -> float:
        """Return how long an image that came now would wait for its pixels; 0 where none waits."""
        return self._pool.backlog_s()

    async def decode(
        self, upload: Upload, *, size: ImageSize, worked: Worked | None = None
    ) -> Pixels:
        """Return the pixels of one image, shape ``(H, W, 3)``, not to be written to.

        Args:
            upload: As it was sent.
            size: What the network reads.
            worked: Told what this took apart from waiting.

        Raises:
            ImageUndecodable: The bytes are no image of a format that is read, or a broken one.
            BadRequest: An array is not whole, or of another type or shape.
            PayloadTooLarge: It has too many pixels.
            Overloaded: Too many requests wait for the pool already.
            ShuttingDown: The decoder is closed.
        """
        pixels = self.decode_at_once(upload, size=size, worked=worked)
        if pixels is not None:
            return pixels
        return await self.decode_in_turn(upload, size=size, worked=worked)

    def decode_at_once(
        self, upload: Upload, *, size: ImageSize, worked: Worked | None = None
    ) -> Pixels | None:
        """Return the pixels of an image that costs less than a hop to a thread; None of another.

        Raises what `decode` does of the image itself.
        """
        data, max_pixels = upload.data, self._limits.max_pixels
        if upload.kind is UploadKind.ARRAY:
            return self._frame_at_once(view_frame(data), size, worked)
        if not opens_at_once(data):
            return None
        began_s = time.thread_time()
        image = open_image(data, max_pixels=max_pixels)
        if not loads_at_once(image.width, image.height):
            return None
        pixels = load_pixels(image, size=size)
        if worked is not None:
            worked(time.thread_time() - began_s)
        return pixels

    async def decode_in_turn(
        self, upload: Upload, *, size: ImageSize, worked: Worked | None = None
    ) -> Pixels:
        """Return the pixels of one image, decoded in the pool; for the rest see `decode`."""
        data, max_pixels = upload.data, self._limits.max_pixels
        if upload.kind is UploadKind.ARRAY:
            frame = view_frame(data)
            return await self._in_pool(lambda: _fit_frame(frame, size), worked)
        return await self._in_pool(
            lambda: decode_image(data, size=size, max_pixels=max_pixels), worked
        )

    async def decode_batch(
        self, batch: BatchUpload, *, size: ImageSize, worked: Worked | None = None
    ) -> DecodedBatch:
        """Return the pixels of all images of a batch that can be decoded.

        Args:
            batch: As it was sent.
            size: What the network reads.
            worked: Told what each image took apart from waiting.

        Raises:
            BadRequest: An array is not whole, or of another type or shape.
            PayloadTooLarge: There are too many images, or frames have too many pixels.
            Overloaded: Too many requests wait for the pool already.
            ShuttingDown: The decoder is closed.
        """
        if batch.array is not None:
            return await self._decode_frames(view_frames(batch.array), size, worked)
        parts, limits = batch.parts, self._limits
        self._limit_images(len(parts))

        def picture_at(index: int) -> Pixels:
            return decode_image(parts[index].read(limits), size=size, max_pixels=limits.max_pixels)

        return await self._fill(len(parts), picture_at, size, worked)

    def close(self) -> None:
        """Take nothing more; the threads end by themselves."""
        self._pool.close()

    def _frame_at_once(
        self, frame: Pixels, size: ImageSize, worked: Worked | None
    ) -> Pixels | None:
        height, width, _ = frame.shape
        limit_pixels(height * width, self._limits.max_pixels)
        if (height, width) == size:
            return frame
        if loads_at_once(width, height):
            return _metered(lambda: _fit_frame(frame, size), worked)
        return None

    async def _decode_frames(
        self, frames: Pixels, size: ImageSize, worked: Worked | None
    ) -> DecodedBatch:
        count, height, width = frames.shape[:3]
        self._limit_images(count)
        limit_pixels(height * width, self._limits.max_pixels)
        if (height, width) == size:
            return DecodedBatch(frames, tuple(range(count)))
        return await self._fill(count, lambda index: _fit_frame(frames[index], size), size, worked)

    async def _fill(
        self,
        count: int,
        picture_at: Callable[[int], Pixels],
        size: ImageSize,
        worked: Worked | None,
    ) -> DecodedBatch:
        rows = _Rows(np.empty((count, size.height, size.width, 3), np.uint8))
        outcomes = await self._pool.run(
            count, lambda index: rows.add(_metered(lambda: picture_at(index), worked))
        )
        return DecodedBatch(rows.pixels[: rows.filled], outcomes)

    async def _in_pool(self, work: Callable[[], T], worked: Worked | None) -> T:
        (outcome,) = await self._pool.run(1, lambda _: _metered(work, worked))
        if isinstance(outcome, RequestRejected):
            raise outcome
        return outcome

    def _limit_images(self, count: int) -> None:
        limit = self._limits.max_images
        if count > limit:
            raise PayloadTooLarge("the batch", limit=limit, unit="images", actual=count)


def _metered(work: Callable[[], T], worked: Worked | None) -> T:
    """Do some work, and tell what it took of a processor, however it ends."""
    began_s = time.thread_time()  # of this thread alone: it says the same on a busy machine
    try:
        return work()
    finally:
        if worked is not None:
            worked(time.thread_time() - began_s)


def _fit_frame(frame: Pixels, size: ImageSize) -> Pixels:
    return fit(Image.fromarray(frame), height=size.height, width=size.width)
