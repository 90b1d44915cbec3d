"""What went over the wire in one run, as it was: judged later."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

NO_STATUS: Final = 0  # of an arrival that no answer came to: not HTTP's, and arrays hold no None


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """N requests in the order in which they were due; instants are `time.monotonic`'s."""

    scheduled_at: NDArray[np.float64]  # (N,)
    sent_at: NDArray[np.float64]  # (N,), NaN: never
    last_byte_at: NDArray[np.float64]  # (N,), NaN: no answer
    statuses: NDArray[np.int64]  # (N,), `NO_STATUS` where none came
    image_indices: NDArray[np.int64]  # (N,)
    bodies: Sequence[bytes]  # N

    def write(self, path: Path) -> None:
        """Store it; bodies as one string of bytes and where each ends."""
        ends = np.cumsum([len(body) for body in self.bodies], dtype=np.int64)
        np.savez(
            path,
            scheduled_at=self.scheduled_at,
            sent_at=self.sent_at,
            last_byte_at=self.last_byte_at,
            statuses=self.statuses,
            image_indices=self.image_indices,
            body_ends=ends,
            bodies=np.frombuffer(b"".join(self.bodies), dtype=np.uint8),
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` stored."""
        with np.load(path) as arrays:
            joined, ends = arrays["bodies"].tobytes(), arrays["body_ends"].tolist()
            starts = [0, *ends[:-1]]
            return cls(
                scheduled_at=arrays["scheduled_at"],
                sent_at=arrays["sent_at"],
                last_byte_at=arrays["last_byte_at"],
                statuses=arrays["statuses"],
                image_indices=arrays["image_indices"],
                bodies=[joined[a:b] for a, b in zip(starts, ends, strict=True)],
            )
