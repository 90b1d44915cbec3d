"""What the server counts, in a registry of its own, for Prometheus.

`EngineMetrics` listens to the engine, whose lock it counts under; what the API sees of
requests is counted in `service.api.request_metrics`. ``docs/metrics.md`` explains every family; a
test keeps it so.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

from service.backends.base import ModelKey, StageKey
from service.engine.observer import WasteCause
from service.engine.request import ImageOutcome
from service.errors import BackendFailed, RequestRejected
from service.tallies import CounterTally, HistogramTally, expose_tallies

_STAGE_BUCKETS_S: Final = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0),
)
_KEYS_KEPT: Final = 1024  # of which a server has a few dozen
_SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def new_registry() -> CollectorRegistry:
    """Return a registry that so far holds what is known of the process itself."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def expose(registry: CollectorRegistry) -> bytes:
    """Return everything counted, in the text format `EXPOSITION_TYPE`."""
    return generate_latest(registry)


logger = logging.getLogger(__name__)

EXPOSITION_TYPE: Final = CONTENT_TYPE_LATEST


QueueDepths = Callable[[], Mapping[StageKey, int]]


class EngineMetrics:
    """Counts what the engine tells; an `Observer`. Guarded by the engine's lock.

    Args:
        registry: That exposes it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._admitted = CounterTally("anytime_images_admitted", "Images let in.", ["model"])
        self._refused = CounterTally(
            "anytime_cohorts_refused", "Cohorts refused at admission.", ["error"]
        )
        self._warm_up_macs = CounterTally(
            "anytime_warm_up_macs",
            "MACs executed to profile a model before the server was ready.",
            ["model"],
        )
        self._queues = _QueueGauge()
        self._stage_s = HistogramTally(
            "anytime_stage_seconds",
            "Time a batch took at a stage.",
            ["model", "stage"],
            bounds=_STAGE_BUCKETS_S,
        )
        self._batch_size = HistogramTally(
            "anytime_stage_batch_size",
            "Images that ran a stage together.",
            ["model", "stage"],
            bounds=_SIZE_BUCKETS,
        )
        self._failures = CounterTally(
            "anytime_stage_failures", "Batches that failed.", ["model", "stage"]
        )
        self._exits = CounterTally(
            "anytime_exits", "Images answered, by exit and reason.", ["model", "exit", "reason"]
        )
        self._unanswered = CounterTally(
            "anytime_images_unanswered", "Images admitted that got no answer.", ["model", "error"]
        )
        self._macs = CounterTally("anytime_executed_macs", "MACs begun at stages.", ["model"])
        self._answered_macs = CounterTally(
            "anytime_answered_macs", "MACs of answered images.", ["model"]
        )
        self._wasted_macs = CounterTally(
            "anytime_wasted_macs", "MACs in nobody's answer.", ["cause"]
        )
        self._padding_macs = CounterTally(
            "anytime_padding_macs", "MACs of rows that were no image."
        )
        expose_tallies(
            registry,
            *(self._admitted, self._refused, self._warm_up_macs, self._queues, self._stage_s),
            *(self._batch_size, self._failures, self._exits, self._unanswered, self._macs),
            *(self._answered_macs, self._wasted_macs, self._padding_macs),
        )

    def watch_queues(self, depths: QueueDepths) -> None:
        """Ask for the queues' depths whenever the metrics are read."""
        self._queues.depths = depths

    def admitted(self, model: ModelKey, num_images: int) -> None:
        """Count a cohort that was let in."""
        self._admitted.add(num_images, _model(model))

    def refused(self, error: RequestRejected) -> None:
        """Count a cohort that was not."""
        self._refused.add(1, type(error).__name__)

    def stage_finished(
        self, stage: StageKey, *, batch_size: int, num_classified: int, elapsed_s: float, macs: int
    ) -> None:
        """Count a batch that ran."""
        del num_classified
        labels = _stage(stage)
        self._stage_s.observe(elapsed_s, *labels)
        self._batch_size.observe(batch_size, *labels)
        self._macs.add(macs, labels[0])

    def stage_failed(
        self, stage: StageKey, *, batch_size: int, macs: int, error: BackendFailed
    ) -> None:
        """Count a batch that failed; why is for the log."""
        logger.error(
            "stage %d of %s failed", stage.stage_index, _model(stage.model), exc_info=error
        )
        labels = _stage(stage)
        self._failures.add(1, *labels)
        self._batch_size.observe(batch_size, *labels)
        self._macs.add(macs, labels[0])

    def settled(self, model: ModelKey, outcomes: Sequence[ImageOutcome]) -> None:
        """Count what callers are told."""
        name = _model(model)
        for outcome in outcomes:
            answer = outcome.answer
            if answer is not None:
                self._exits.add(1, name, str(answer.record.exit_index), answer.reason.value)
                self._answered_macs.add(outcome.spent_macs, name)
            else:
                self._unanswered.add(1, name, type(outcome.error).__name__)

    def abandoned(self, model: ModelKey, num_images: int) -> None:
        """Count images whose caller went before they were settled."""
        self._unanswered.add(num_images, _model(model), "Abandoned")

    def wasted(self, macs: int, cause: WasteCause) -> None:
        """Count executed work that is in nobody's answer."""
        self._wasted_macs.add(macs, cause.value)

    def warmed_up(self, model: ModelKey, macs: int) -> None:
        """Count what profiling executed before the server was ready."""
        self._warm_up_macs.add(macs, _model(model))

    def padded(self, macs: int) -> None:
        """Count work on rows that fill a batch up to a size the runtime is prepared for."""
        self._padding_macs.add(macs)


class _QueueGauge:
    """How many images wait, read from the engine when it is asked for."""

    def __init__(self) -> None:
        self.depths: QueueDepths = dict

    def family(self) -> Metric:
        """Return the depth of each queue."""
        family = GaugeMetricFamily(
            "anytime_queue_depth", "Images waiting for a stage.", labels=["model", "stage"]
        )
        for stage, depth in self.depths().items():
            family.add_metric(_stage(stage), depth)
        return family


@lru_cache(maxsize=_KEYS_KEPT)
def _model(key: ModelKey) -> str:
    return f"{key.name}@{key.version}"


@lru_cache(maxsize=_KEYS_KEPT)
def _stage(key: StageKey) -> tuple[str, str]:
    return _model(key.model), str(key.stage_index)
