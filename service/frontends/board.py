"""What the engine process shows to all front ends, and each of them to the others.

The engine publishes its admission ledger and what stages take; a front end reads them without
asking. Every front end has a cell for what it has let in and the engine has not counted yet. So a
header check and its charge are one synchronous step and no round trip.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, Self

import numpy as np

from service.shared_block import SharedBlock

MAX_FRONT_ENDS: Final = 64
MAX_BUCKETS: Final = 512
_MAX_LANES: Final = 64

_COUNTER: Final = Struct("<Q")
_HEAD: Final = Struct("<IIqqqqdd")
_CELL: Final = Struct("<Qqqq")
_ALIGNMENT: Final = 64
_FLOAT_BYTES: Final = 8
_BUCKET_FLOATS: Final = 4


@dataclass(frozen=True, slots=True)
class PublishedBucket:
    """Requests that want their answers at about the same time, as `Demand` looks at them."""

    key: tuple[float]  # the instant
    start_by: float
    owed_us: int
    before_last_us: int


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The engine's admission ledger at one instant."""

    num_in_flight: int  # images
    num_background: int  # of them, without a deadline
    feature_bytes: int
    full_depth_us: int  # work if everything in flight ran to the last exit
    margin_s: float  # learnt
    stretch: float  # how much longer deadline work takes than it says
    busy_until: tuple[float, ...]  # by lane; -inf where it is free
    buckets: tuple[PublishedBucket, ...]  # the first deadline first
    taken: tuple[int, ...] = (0,) * MAX_FRONT_ENDS  # by front end, how many requests are counted

    @property
    def owed_us(self) -> int:
        """Work owed to all of them."""
        return sum(bucket.owed_us for bucket in self.buckets)

    def latest_first(self) -> Iterator[PublishedBucket]:
        """Return the buckets, the last deadline first."""
        return reversed(self.buckets)


@dataclass(frozen=True, slots=True)
class Pending:
    """What one front end has let in and the engine has not counted."""

    num_images: int = 0
    num_background: int = 0
    feature_bytes: int = 0
    owed_us: int = 0

    def plus(self, other: "Pending") -> "Pending":
        """Return both together."""
        return Pending(
            self.num_images + other.num_images,
            self.num_background + other.num_background,
            self.feature_bytes + other.feature_bytes,
            self.owed_us + other.owed_us,
        )

    def minus(self, other: "Pending") -> "Pending":
        """Return what is left without a part of it."""
        return Pending(
            self.num_images - other.num_images,
            self.num_background - other.num_background,
            self.feature_bytes - other.feature_bytes,
            self.owed_us - other.owed_us,
        )


class Board:
    """Views of the shared memory in which all that lies; every process makes its own.

    One process writes each part: the engine the ledger and the times, a front end its own cell.

    Args:
        block: At least as large as `size_bytes` says.
        num_times: Numbers in the table of what stages take.
    """

    def __init__(self, block: SharedBlock, num_times: int) -> None:
        self._buffer = block.buffer
        offsets = _offsets(num_times)
        self._head_at, lanes_at, buckets_at, taken_at, self._cells_at, times_at, _ = offsets
        buffer = block.buffer
        self._lanes = np.ndarray((_MAX_LANES,), np.float64, buffer, lanes_at)
        self._buckets = np.ndarray((MAX_BUCKETS, _BUCKET_FLOATS), np.float64, buffer, buckets_at)
        self._taken = np.ndarray((MAX_FRONT_ENDS,), np.int64, buffer, taken_at)
        self.times = np.ndarray((num_times,), np.float64, buffer, times_at)
        self._view: LedgerView | None = None
        self._seen = 0

    @classmethod
    def create(cls, num_times: int) -> tuple[Self, SharedBlock]:
        """Return a new board that shows nothing yet, and the block it lies in."""
        block = SharedBlock.create(_offsets(num_times)[-1])
        return cls(block, num_times), block

    def publish(self, view: LedgerView) -> None:
        """Show a ledger to the front ends; an odd counter tells them that it is being written."""
        counter = self._count()
        _COUNTER.pack_into(self._buffer, 0, counter + 1)
        buckets = view.buckets[:MAX_BUCKETS]
        lanes = view.busy_until[:_MAX_LANES]
        self._lanes[: len(lanes)] = lanes
        if buckets:
            self._buckets[: len(buckets)] = [
                (bucket.key[0], bucket.start_by, bucket.owed_us, bucket.before_last_us)
                for bucket in buckets
            ]
        self._taken[:] = view.taken
        _HEAD.pack_into(
            self._buffer,
            self._head_at,
            len(lanes),
            len(buckets),
            view.num_in_flight,
            view.num_background,
            view.feature_bytes,
            view.full_depth_us,
            view.margin_s,
            view.stretch,
        )
        _COUNTER.pack_into(self._buffer, 0, counter + 2)

    def ledger(self) -> LedgerView | None:
        """Return the ledger as last shown whole; None where nothing was shown yet."""
        counter = self._count()
        if counter != self._seen and not counter % 2:
            view = self._read()
            if self._count() == counter:  # else it was written meanwhile: what was seen before
                self._view, self._seen = view, counter
        return self._view

    def put_cell(self, front_end: int, num_sent: int, pending: Pending) -> None:
        """Show what a front end has let in.

        Args:
            front_end: Which.
            num_sent: It is counted by the engine once that has taken so many of its requests.
            pending: What it is.
        """
        _CELL.pack_into(
            self._buffer,
            self._cells_at + front_end * _CELL.size,
            num_sent,
            pending.num_images | pending.num_background << 32,
            pending.feature_bytes,
            pending.owed_us,
        )

    def pending_of_others(self, front_end: int, num_front_ends: int) -> Pending:
        """Return what other front ends have let in and the engine has not counted."""
        total, taken = Pending(), self._taken.tolist()
        for index in range(num_front_ends):
            if index == front_end:
                continue
            at = self._cells_at + index * _CELL.size
            num_sent, images, feature_bytes, owed_us = _CELL.unpack_from(self._buffer, at)
            if images and num_sent > taken[index]:
                count = Pending(images & 0xFFFFFFFF, images >> 32, feature_bytes, owed_us)
                total = total.plus(count)
        return total

    def _count(self) -> int:
        counter: int = _COUNTER.unpack_from(self._buffer, 0)[0]
        return counter

    def _read(self) -> LedgerView:
        num_lanes, num_buckets, *counts, margin_s, stretch = _HEAD.unpack_from(
            self._buffer, self._head_at
        )
        rows = self._buckets[: min(num_buckets, MAX_BUCKETS)].tolist()
        num_in_flight, num_background, feature_bytes, full_depth_us = counts
        return LedgerView(
            num_in_flight,
            num_background,
            feature_bytes,
            full_depth_us,
            margin_s,
            stretch,
            tuple(self._lanes[: min(num_lanes, _MAX_LANES)].tolist()),
            tuple(
                PublishedBucket((key,), start_by, round(owed_us), round(before_last_us))
                for key, start_by, owed_us, before_last_us in rows
            ),
            tuple(self._taken.tolist()),
        )


def _offsets(num_times: int) -> tuple[int, ...]:
    sizes = (
        _COUNTER.size,
        _HEAD.size,
        _MAX_LANES * _FLOAT_BYTES,
        MAX_BUCKETS * _BUCKET_FLOATS * _FLOAT_BYTES,
        MAX_FRONT_ENDS * _FLOAT_BYTES,
        MAX_FRONT_ENDS * _CELL.size,
        num_times * _FLOAT_BYTES,
    )
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + max(_ALIGNMENT, -(-size // _ALIGNMENT) * _ALIGNMENT))
    return tuple(starts[1:])
