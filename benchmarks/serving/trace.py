"""When requests arrive and which image each brings: fixed by a seed, the same for every server."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

BURST_RATIO: Final = 2.5  # rate in a burst ÷ mean rate
BURST_SHARE: Final = 0.2  # of the time
BURST_S: Final = 0.2  # mean length of one


class ArrivalProcess(Enum):
    """How requests are spread over time; the mean rate is the same."""

    POISSON = "poisson"
    BURSTY = "bursty"  # Poisson at one of two rates that take turns (a Markov-modulated process)


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of every server alike."""

    process: ArrivalProcess
    rate_hz: float  # mean arrivals a second
    seconds: float
    repeat: int  # another repeat is another trace

    @property
    def seed(self) -> int:
        """Of the trace; no two loads share it."""
        return zlib.crc32(repr(self).encode())


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Arrivals of one run, N of them."""

    scheduled_s: NDArray[np.float64]  # (N,), ascending, from the start of the run
    image_indices: NDArray[np.int64]  # (N,), into the test set

    def __len__(self) -> int:
        """Return N."""
        return len(self.scheduled_s)

    def until(self, seconds: float) -> "Trace":
        """Return its beginning."""
        number = int(np.searchsorted(self.scheduled_s, seconds))
        return Trace(self.scheduled_s[:number], self.image_indices[:number])

    def write(self, path: Path) -> None:
        """Store it, for whoever wants to do better on the same arrivals."""
        np.savez(path, scheduled_s=self.scheduled_s, image_indices=self.image_indices)

    @classmethod
    def read(cls, path: Path) -> "Trace":
        """Return a stored trace."""
        with np.load(path) as arrays:
            return cls(arrays["scheduled_s"], arrays["image_indices"])


def make_trace(load: Load, *, num_images: int) -> Trace:
    """Return the arrivals of a load.

    Images are drawn by whole shuffled passes over the test set, so that a run's accuracy differs
    from the set's by as little as can be.
    """
    generator = np.random.default_rng(load.seed)
    scheduled_s = _ARRIVALS[load.process](load, generator)
    num_passes = -(-len(scheduled_s) // num_images)
    passes = [generator.permutation(num_images) for _ in range(num_passes)]
    images = np.concatenate([*passes, np.empty(0, np.int64)])[: len(scheduled_s)]
    return Trace(scheduled_s, images.astype(np.int64))


def _poisson(load: Load, generator: np.random.Generator) -> NDArray[np.float64]:
    return _uniform(0.0, load.seconds, rate_hz=load.rate_hz, generator=generator)


def _bursty(load: Load, generator: np.random.Generator) -> NDArray[np.float64]:
    quiet_s = BURST_S * (1 - BURST_SHARE) / BURST_SHARE
    quiet_ratio = (1 - BURST_SHARE * BURST_RATIO) / (1 - BURST_SHARE)
    parts, now, is_burst = [], 0.0, bool(generator.random() < BURST_SHARE)
    while now < load.seconds:
        until = min(now + generator.exponential(BURST_S if is_burst else quiet_s), load.seconds)
        rate_hz = load.rate_hz * (BURST_RATIO if is_burst else quiet_ratio)
        parts.append(_uniform(now, until, rate_hz=rate_hz, generator=generator))
        now, is_burst = until, not is_burst
    return np.concatenate(parts)


def _uniform(
    start: float, end: float, *, rate_hz: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the arrivals of a Poisson process: their number is Poisson, each is anywhere."""
    number = generator.poisson(rate_hz * (end - start))
    return np.sort(generator.uniform(start, end, number))


_ARRIVALS: Final[
    dict[ArrivalProcess, Callable[[Load, np.random.Generator], NDArray[np.float64]]]
] = {ArrivalProcess.POISSON: _poisson, ArrivalProcess.BURSTY: _bursty}
