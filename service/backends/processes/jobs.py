"""What a lane process is told to run, and what it says afterwards: one datagram each.

Numbers alone; features, pixels and logits lie in the arena.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np

MAX_BYTES: Final = 2**17  # of a datagram: 16,000 rows, which no batch has
DONE: Final = b"+"
_FAILED: Final = b"-"
_WHOLE: Final = -1
_MAX_MESSAGE_CHARS: Final = 2000


class Part(NamedTuple):
    """Some rows of a batch that lies in the arena."""

    offset: int
    num_rows: int  # of the whole batch
    rows: Sequence[int] | None  # None: all of them, in order


@dataclass(frozen=True, slots=True)
class StageJob:
    """A stage to run."""

    model_index: int
    stage_index: int
    features_at: int  # where what it leaves is to lie
    logits_at: int
    parts: Sequence[Part]
    classify: Sequence[int]

    def pack(self) -> bytes:
        """Return it as bytes."""
        numbers = [
            self.model_index,
            self.stage_index,
            self.features_at,
            self.logits_at,
            len(self.parts),
            len(self.classify),
        ]
        for offset, num_rows, rows in self.parts:
            numbers += (offset, num_rows, _WHOLE if rows is None else len(rows))
            if rows is not None:
                numbers += rows
        numbers += self.classify
        return np.array(numbers, dtype=np.int64).tobytes()

    @classmethod
    def unpack(cls, frame: bytes) -> Self:
        """Return what was packed."""
        model_index, stage_index, features_at, logits_at, num_parts, num_classified, *rest = (
            np.frombuffer(frame, dtype=np.int64).tolist()
        )
        parts, at = [], 0
        for _ in range(num_parts):
            offset, num_rows, num_picked = rest[at : at + 3]
            at += 3
            rows = None
            if num_picked != _WHOLE:
                rows = rest[at : at + num_picked]
                at += num_picked
            parts.append(Part(offset, num_rows, rows))
        classify = rest[at : at + num_classified]
        return cls(model_index, stage_index, features_at, logits_at, parts, classify)


def failure(message: str) -> bytes:
    """Return what is said of a stage that failed."""
    return _FAILED + message[:_MAX_MESSAGE_CHARS].encode(errors="replace")


def message_of(reply: bytes) -> str | None:
    """Return why a stage failed; None where it went well."""
    return None if reply == DONE else reply[len(_FAILED) :].decode(errors="replace")
