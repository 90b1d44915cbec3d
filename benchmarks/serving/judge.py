"""What became of every arrival, seen from outside: the server's own word is kept beside it.

Judged by the generator's clock over all arrivals: in time is a 200 whose last byte came before the
scheduled send plus the deadline plus a millisecond for the wire. Whatever else is a miss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.recording import NO_STATUS, Recording
from benchmarks.serving.server import Answer

WIRE_MS: Final = 1.0
OK: Final = 200
NOTHING: Final = -1  # exit or own word of an arrival that has none: arrays of integers hold no None

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """One run, by arrival; every array has shape ``(N,)``."""

    deadline_ms: float
    seconds: float  # of the trace
    scheduled_s: Floats  # from the first arrival
    lag_ms: Floats  # scheduled → sent; NaN: never sent
    latency_ms: Floats  # scheduled → last byte; NaN: no answer
    statuses: Integers  # `NO_STATUS` where no answer came
    image_indices: Integers
    is_right: NDArray[np.bool_]
    exits: Integers  # `NOTHING` where it is not said
    own_word: Integers  # the server's own `met`, 0 or 1; `NOTHING` where it has none
    queue_ms: Floats  # NaN: not said
    compute_ms: Floats

    @property
    def is_in_time(self) -> NDArray[np.bool_]:
        """Whether a 200 came in time."""
        return np.asarray(self.is_answered & (self.latency_ms <= self.deadline_ms + WIRE_MS))

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Whether a 200 came at all."""
        return np.asarray(self.statuses == OK)

    @property
    def is_refused(self) -> NDArray[np.bool_]:
        """Whether the server said no, at whatever instant."""
        return np.asarray(~self.is_answered & (self.statuses != NO_STATUS))

    @property
    def is_useful(self) -> NDArray[np.bool_]:
        """Right and in time."""
        return np.asarray(self.is_right & self.is_in_time)

    def write(self, path: Path) -> None:
        """Store it."""
        np.savez_compressed(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` stored."""
        with np.load(path) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        for name in ("deadline_ms", "seconds"):
            values[name] = float(values[name])
        return cls(**values)


def judge(
    recording: Recording,
    read: Callable[[bytes], Answer],
    labels: Integers,
    *,
    deadline_ms: float,
    seconds: float,
) -> Outcomes:
    """Read every answer and lay it beside the truth.

    Args:
        recording: Of one run.
        read: Of the server under test; a 200 that it cannot read is taken for no 200.
        labels: True class of every image.
        deadline_ms: From the scheduled send on.
        seconds: Length of the trace.
    """
    statuses = recording.statuses.copy()
    answers = [_read(read, s, b) for s, b in zip(statuses, recording.bodies, strict=True)]
    statuses[[a is None and s == OK for a, s in zip(answers, statuses, strict=True)]] = NO_STATUS
    truths = labels[recording.image_indices].tolist()
    pairs = zip(answers, truths, strict=True)
    scheduled_at = recording.scheduled_at
    return Outcomes(
        deadline_ms=deadline_ms,
        seconds=seconds,
        scheduled_s=scheduled_at - (scheduled_at[0] if len(scheduled_at) else 0.0),
        lag_ms=1000 * (recording.sent_at - scheduled_at),
        latency_ms=1000 * (recording.last_byte_at - scheduled_at),
        statuses=statuses,
        image_indices=recording.image_indices,
        is_right=np.array([a is not None and a.label_index == t for a, t in pairs], dtype=np.bool_),
        exits=_integers([None if a is None else a.exit_index for a in answers]),
        own_word=_integers([None if a is None else a.is_met for a in answers]),
        queue_ms=_floats([None if a is None else a.queue_ms for a in answers]),
        compute_ms=_floats([None if a is None else a.compute_ms for a in answers]),
    )


def _read(read: Callable[[bytes], Answer], status: int, body: bytes) -> Answer | None:
    if status != OK:
        return None
    try:
        return read(body)
    except ValueError:
        return None


def _integers(values: Sequence[int | None]) -> Integers:
    return np.array([NOTHING if v is None else int(v) for v in values], dtype=np.int64)


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
