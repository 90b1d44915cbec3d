"""What the engine says of itself: how full it is, how long things take. Nothing here changes it."""

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from service.backends.base import ModelKey, StageKey
from service.engine.admission import AdmissionLedger
from service.engine.clock import Clock
from service.engine.core import EngineCore
from service.engine.request import EngineLimits, ServedModel
from service.engine.stage_costs import ModelTimes, StageCosts

SeenT = TypeVar("SeenT")


class Outlook:
    """Answers questions about an engine, in any thread.

    Args:
        core: Of the engine.
        lock: That guards it.
        clock: Deadlines are instants of it.
        models: Everything that may be asked for.
        costs: Expected times.
        limits: How much may be in flight.
    """

    def __init__(
        self,
        core: EngineCore,
        lock: threading.Lock,
        clock: Clock,
        *,
        models: Mapping[ModelKey, ServedModel],
        costs: StageCosts,
        limits: EngineLimits,
    ) -> None:
        self.limits = limits
        self.stage_costs = costs
        self._core = core
        self._lock = lock
        self._clock = clock
        self._models = dict(models)

    @property
    def num_lanes(self) -> int:
        """Batches that run side by side."""
        return self._core.lanes.num_lanes

    @property
    def num_in_flight(self) -> int:
        """Images admitted and not yet settled."""
        return self._core.ledger.num_in_flight

    @property
    def feature_bytes(self) -> int:
        """Bytes of features that are held, or charged for what is in flight if that is more."""
        return max(self._core.ledger.feature_bytes, self._core.ledger.held_bytes)

    def queue_depths(self) -> dict[StageKey, int]:
        """Return how many images wait for each stage."""
        with self._lock:
            return {
                stage: self._core.depth(stage)
                for model in self._core.models.values()
                for stage in model.stages
            }

    def look_at_ledger(self, look: Callable[[AdmissionLedger, float], SeenT]) -> SeenT:
        """Return what somebody sees of the admission ledger while nothing moves.

        Args:
            look: Told the ledger, to be left as it is, and the present instant; it must be quick.
        """
        with self._lock:
            return look(self._core.ledger, self._clock.now())

    def times(self, model: ModelKey) -> ModelTimes:
        """Return what the stages of a model are expected to take, as exit policies ask."""
        return self.stage_costs.times(model)

    def expected_exit_s(self, model: ModelKey, exit_index: int, batch_size: int) -> float:
        """Return the seconds straight to an exit, no earlier classifier on the way."""
        return self.times(model).straight_s(0, exit_index, batch_size)

    def retry_after_s(self) -> float:
        """Return when the present backlog should be gone."""
        with self._lock:
            return self._core.ledger.retry_after_s(self._clock.now())

    def backlog_s(self) -> float:
        """Return the seconds until a lane is free for who is due after all with a deadline."""
        with self._lock:
            return self._core.ledger.backlog_s(self._clock.now())

    def max_cohort(self, model: ModelKey) -> int:
        """Return how many images of a model may be in flight together, also without a deadline."""
        return self.limits.max_cohort(self._models[model].border_bytes)
