"""What the server counts, in a registry of its own, for Prometheus.

`EngineMetrics` listens to the engine, from its lanes and from the event loop; what the API sees of
requests is counted in `service.api.request_metrics`. ``docs/metrics.md`` explains every family; a
test keeps it so.
"""

import logging
from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.backends.base import ModelKey, StageKey
from service.engine.observer import WasteCause
from service.engine.request import ImageOutcome
from service.errors import BackendFailed, RequestRejected

_STAGE_BUCKETS_S: Final = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0),
)
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


class EngineMetrics:
    """Counts what the engine tells; an `Observer`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._admitted = Counter(
            "anytime_images_admitted", "Images let in.", ["model"], registry=registry
        )
        self._refused = Counter(
            "anytime_cohorts_refused", "Cohorts refused at admission.", ["error"], registry=registry
        )
        self._warm_up_macs = Counter(
            "anytime_warm_up_macs",
            "MACs executed to profile a model before the server was ready.",
            ["model"],
            registry=registry,
        )
        self._queue_depth = Gauge(
            "anytime_queue_depth",
            "Images waiting for a stage.",
            ["model", "stage"],
            registry=registry,
        )
        self._stage_s = Histogram(
            "anytime_stage_seconds",
            "Time a batch took at a stage.",
            ["model", "stage"],
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )
        self._batch_size = Histogram(
            "anytime_stage_batch_size",
            "Images that ran a stage together.",
            ["model", "stage"],
            buckets=_SIZE_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "anytime_stage_failures", "Batches that failed.", ["model", "stage"], registry=registry
        )
        self._exits = Counter(
            "anytime_exits",
            "Images answered, by exit and reason.",
            ["model", "exit", "reason"],
            registry=registry,
        )
        self._unanswered = Counter(
            "anytime_images_unanswered",
            "Images admitted that got no answer.",
            ["model", "error"],
            registry=registry,
        )
        self._macs = Counter(
            "anytime_executed_macs", "MACs begun at stages.", ["model"], registry=registry
        )
        self._answered_macs = Counter(
            "anytime_answered_macs", "MACs of answered images.", ["model"], registry=registry
        )
        self._wasted_macs = Counter(
            "anytime_wasted_macs", "MACs in nobody's answer.", ["cause"], registry=registry
        )
        self._padding_macs = Counter(
            "anytime_padding_macs", "MACs of rows that were no image.", registry=registry
        )

    def admitted(self, model: ModelKey, num_images: int) -> None:
        """Count a cohort that was let in."""
        self._admitted.labels(_model(model)).inc(num_images)

    def refused(self, error: RequestRejected) -> None:
        """Count a cohort that was not."""
        self._refused.labels(type(error).__name__).inc()

    def queue_changed(self, stage: StageKey, depth: int) -> None:
        """Note how many images wait."""
        self._queue_depth.labels(*_stage(stage)).set(depth)

    def stage_finished(
        self, stage: StageKey, *, batch_size: int, num_classified: int, elapsed_s: float, macs: int
    ) -> None:
        """Count a batch that ran."""
        del num_classified
        labels = _stage(stage)
        self._stage_s.labels(*labels).observe(elapsed_s)
        self._batch_size.labels(*labels).observe(batch_size)
        self._macs.labels(labels[0]).inc(macs)

    def stage_failed(
        self, stage: StageKey, *, batch_size: int, macs: int, error: BackendFailed
    ) -> None:
        """Count a batch that failed; why is for the log."""
        logger.error(
            "stage %d of %s failed", stage.stage_index, _model(stage.model), exc_info=error
        )
        labels = _stage(stage)
        self._failures.labels(*labels).inc()
        self._batch_size.labels(*labels).observe(batch_size)
        self._macs.labels(labels[0]).inc(macs)

    def settled(self, model: ModelKey, outcomes: Sequence[ImageOutcome]) -> None:
        """Count what callers are told."""
        name = _model(model)
        for outcome in outcomes:
            if outcome.answer is not None:
                exit_index = str(outcome.answer.record.exit_index)
                self._exits.labels(name, exit_index, outcome.answer.reason.value).inc()
                self._answered_macs.labels(name).inc(outcome.spent_macs)
            else:
                self._unanswered.labels(name, type(outcome.error).__name__).inc()

    def abandoned(self, model: ModelKey, num_images: int) -> None:
        """Count images whose caller went before they were settled."""
        self._unanswered.labels(_model(model), "Abandoned").inc(num_images)

    def wasted(self, macs: int, cause: WasteCause) -> None:
        """Count executed work that is in nobody's answer."""
        self._wasted_macs.labels(cause.value).inc(macs)

    def warmed_up(self, model: ModelKey, macs: int) -> None:
        """Count what profiling executed before the server was ready."""
        self._warm_up_macs.labels(_model(model)).inc(macs)

    def padded(self, macs: int) -> None:
        """Count work on rows that fill a batch up to a size the runtime is prepared for."""
        self._padding_macs.inc(macs)


def _model(key: ModelKey) -> str:
    return f"{key.name}@{key.version}"


def _stage(key: StageKey) -> tuple[str, str]:
    return _model(key.model), str(key.stage_index)
