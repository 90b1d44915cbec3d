"""A backend around the real one that takes down what is submitted to it."""

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.overheads.call_log import CallLog
from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageBackend,
    StageKey,
    StageSite,
    Ticket,
)


class RecordingBackend:
    """Runs stages as another backend does, and takes down each.

    Args:
        backend: Which runs them.
        log: Where calls go.
        num_threads: That each of them is spread over.
    """

    def __init__(self, backend: StageBackend, log: CallLog, *, num_threads: int) -> None:
        self._backend = backend
        self._log = log
        self._num_threads = num_threads
        self.name = backend.name
        self.device = backend.device
        self.can_join = backend.can_join

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in pixels; see `StageBackend.put`."""
        return self._backend.put(model, inputs)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Take the call down and run it; see `StageBackend.submit`."""
        return self.submit_to(self._backend, stage, parts, classify)

    def submit_to(
        self,
        site: StageSite,
        stage: StageKey,
        parts: Sequence[FeatureRows],
        classify: Sequence[int],
    ) -> Ticket:
        """Take the call down and have one lane run it, or any."""
        lane = threading.get_ident() if site is self._backend else id(site)
        num_rows = sum(len(part.rows) for part in parts)
        self._log.add(
            time.monotonic(),
            lane,
            stage.stage_index,
            num_rows,
            len(classify),
            self._num_threads,
        )
        return site.submit(stage, parts, classify=classify)

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()
