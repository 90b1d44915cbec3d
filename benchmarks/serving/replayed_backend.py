"""A backend around a real one: its stages run for their time, its answers are another network's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.bodies import numbers_of
from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageBackend,
    StageKey,
    StageOutput,
    StageSite,
    Ticket,
)


@dataclass(frozen=True, slots=True, eq=False)
class _NumberedFeatures:
    """Features of images whose numbers are known."""

    features: FeatureHandle
    numbers: NDArray[np.int64]  # (rows,)

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return self.features.num_rows

    @property
    def feature_bytes(self) -> int:
        """As the real backend says."""
        return self.features.feature_bytes


@dataclass(frozen=True, slots=True, eq=False)
class _ReplayedTicket:
    """A stage that runs, and what will be said of its images."""

    ticket: Ticket
    numbers: NDArray[np.int64]
    logits: NDArray[np.float32]

    def result(self) -> StageOutput:
        """Wait for the stage; say what was written of its images."""
        output = self.ticket.result()
        return StageOutput(_NumberedFeatures(output.features, self.numbers), self.logits)


class ReplayedBackend:
    """Runs stages and says of image i at exit k what a table says.

    Args:
        real: Runs them.
        logits: By image and exit, shape ``(N, K, classes)``; images say their number themselves, as
            `benchmarks.serving.bodies.numbered`, others (a warm-up's) are taken modulo N.
    """

    def __init__(self, real: StageBackend, logits: NDArray[np.float32]) -> None:
        self._real = real
        self._logits = logits
        self.name = real.name
        self.device = real.device
        self.can_join = real.can_join

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in pixels; see `StageBackend.put`."""
        numbers = numbers_of(inputs) % len(self._logits)
        return _NumberedFeatures(self._real.put(model, inputs), numbers)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Run a stage, its classifier too; see `StageBackend.submit`."""
        return self.submit_to(self._real, stage, parts, classify)

    def submit_to(
        self,
        site: StageSite,
        stage: StageKey,
        parts: Sequence[FeatureRows],
        classify: Sequence[int],
    ) -> Ticket:
        """Have one lane run a stage, or any."""
        real_parts, numbers = [], []
        for part in parts:
            handle = part.handle
            if not isinstance(handle, _NumberedFeatures):
                raise TypeError(f"{handle!r} is not this backend's")
            real_parts.append(FeatureRows(handle.features, part.rows))
            numbers.append(handle.numbers[list(part.rows)])
        joined = np.concatenate(numbers)
        said = self._logits[joined[list(classify)], stage.stage_index]
        ticket = site.submit(stage, real_parts, classify=classify)
        return _ReplayedTicket(ticket, joined, said)

    def close(self) -> None:
        """Close the real backend."""
        self._real.close()
