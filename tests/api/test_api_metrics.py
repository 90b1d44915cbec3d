import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.api.request_metrics import RequestMetrics
from service.backends.base import StageKey
from service.commands import DeadlineReport
from service.engine.observer import WasteCause
from service.engine.request import Answer, ExitReason, ImageOutcome
from service.errors import BackendFailed, DeadlineMissed, Overloaded, ServiceError
from service.metrics import EngineMetrics, expose, new_registry
from tests.api.conftest import MODEL, answer_of, record_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
STAGE = StageKey(MODEL, 1)


@pytest.fixture
def registry() -> CollectorRegistry:
    return new_registry()


@pytest.fixture
def engine(registry: CollectorRegistry) -> EngineMetrics:
    return EngineMetrics(registry)


def outcome_of(
    *, answer: Answer | None = None, error: ServiceError | None = None, spent_macs: int
) -> ImageOutcome:
    return ImageOutcome(
        answer=answer, error=error, spent_macs=spent_macs, compute_s=0.0, compute_share_s=0.0
    )


def test_every_family_is_documented_with_its_kind_and_labels(registry: CollectorRegistry):
    EngineMetrics(registry)
    RequestMetrics(registry)

    rows = re.findall(r"^\| `(anytime_\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.M)

    families = [each for each in registry.collect() if each.name.startswith("anytime_")]
    assert sorted(rows) == sorted((family.name, family.type) for family in families)
    assert len(families) >= 8
    assert all(family.documentation for family in families)


def test_the_process_itself_is_watched(registry: CollectorRegistry):
    assert b"process_resident_memory_bytes" in expose(registry)


def test_images_are_counted_in_and_out(registry: CollectorRegistry, engine: EngineMetrics):
    engine.admitted(MODEL, 3)
    engine.refused(Overloaded(retry_after_s=1))
    answered = answer_of(record_of(0, 1, 0, 0, 0), reason=ExitReason.BUDGET)
    engine.settled(
        MODEL,
        [
            outcome_of(answer=answered, spent_macs=110),
            outcome_of(error=DeadlineMissed(elapsed_s=1), spent_macs=50),
        ],
    )
    engine.abandoned(MODEL, 1)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("anytime_images_admitted_total", model="net@2") == 3
    assert value("anytime_cohorts_refused_total", error="Overloaded") == 1
    assert value("anytime_exits_total", model="net@2", exit="0", reason="budget") == 1
    assert value("anytime_answered_macs_total", model="net@2") == 110
    for error in ("DeadlineMissed", "Abandoned"):
        assert value("anytime_images_unanswered_total", model="net@2", error=error) == 1


def test_stages_are_counted_with_their_work(
    registry: CollectorRegistry, engine: EngineMetrics, caplog: pytest.LogCaptureFixture
):
    engine.watch_queues(lambda: {STAGE: 5})
    engine.stage_finished(STAGE, batch_size=4, num_classified=2, elapsed_s=0.003, macs=400)
    engine.stage_failed(STAGE, batch_size=2, macs=200, error=BackendFailed("no memory"))
    engine.wasted(200, WasteCause.FAILED)

    labels = {"model": "net@2", "stage": "1"}
    assert registry.get_sample_value("anytime_queue_depth", labels) == 5
    assert registry.get_sample_value("anytime_stage_seconds_count", labels) == 1
    assert registry.get_sample_value("anytime_stage_batch_size_sum", labels) == 6
    assert registry.get_sample_value("anytime_stage_failures_total", labels) == 1
    assert registry.get_sample_value("anytime_executed_macs_total", {"model": "net@2"}) == 600
    assert registry.get_sample_value("anytime_wasted_macs_total", {"cause": "failed"}) == 200
    assert "stage 1 of net@2 failed" in caplog.text


def test_padding_is_counted_apart(registry: CollectorRegistry):
    EngineMetrics(registry).padded(7)

    assert registry.get_sample_value("anytime_padding_macs_total") == 7


def test_slack_tells_early_answers_from_late_ones(registry: CollectorRegistry):
    metrics = RequestMetrics(registry)

    metrics.answered("/classify", decode_s=0.001, deadline=DeadlineReport(0.03, 0.004))
    metrics.answered("/classify", decode_s=0.001, deadline=DeadlineReport(0.03, -0.004))
    metrics.answered("/classify", decode_s=0.001, deadline=None)

    route, slack = {"route": "/classify"}, "anytime_deadline_slack_seconds"
    assert registry.get_sample_value(f"{slack}_bucket", {**route, "le": "0.0"}) == 1
    assert registry.get_sample_value(f"{slack}_count", route) == 2
    assert registry.get_sample_value("anytime_deadline_misses_total", {"cause": "late"}) == 1
    assert registry.get_sample_value("anytime_decode_seconds_count", route) == 3
