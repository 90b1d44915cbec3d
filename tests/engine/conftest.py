"""Builders of engine tests: models, costs, and a whole engine on a virtual clock."""

from collections.abc import Sequence

import pytest

from benchmarks.simulation import Asked, Setup, Simulation
from benchmarks.virtual_clock import VirtualClock
from model_store.costs import ExitCosts
from service.backends.base import ModelKey, StageKey
from service.backends.fake import FakeBackend, FakeModel, numbered_images
from service.engine.exit_policy import CohortPolicy
from service.engine.margin import AnswerMargin
from service.engine.observer import WasteCause
from service.engine.request import (
    EngineLimits,
    ExitLimits,
    ImageOutcome,
    ServedModel,
    Terms,
)
from service.engine.stage_costs import StageCosts
from service.engine.stage_run import StageResult, StageRun, run_stage
from service.errors import RequestRejected

KEY = ModelKey("fake", "1")
COSTS = ExitCosts(trunk_macs=(100, 200, 300, 400), classifier_macs=(10, 20, 30, 40))


class RecordingObserver:
    """Keeps what it hears, by kind."""

    def __init__(self) -> None:
        self.refusals: list[RequestRejected] = []
        self.num_admitted = 0
        self.finished: list[tuple[int, int, int, int]] = []
        self.failed: list[tuple[int, int, int, str]] = []
        self.outcomes: list[ImageOutcome] = []
        self.num_abandoned = 0
        self.wasted_macs: dict[WasteCause, int] = {}

    def warmed_up(self, model, macs):
        self.warm_up_macs = macs

    def admitted(self, model, num_images):
        self.num_admitted += num_images

    def refused(self, error):
        self.refusals.append(error)

    def stage_finished(self, stage, *, batch_size, num_classified, elapsed_s, macs):
        self.finished.append((stage.stage_index, batch_size, num_classified, macs))

    def stage_failed(self, stage, *, batch_size, macs, error):
        self.failed.append((stage.stage_index, batch_size, macs, str(error)))

    def settled(self, model, outcomes):
        self.outcomes.extend(outcomes)

    def abandoned(self, model, num_images):
        self.num_abandoned += num_images

    def wasted(self, macs, cause):
        self.wasted_macs[cause] = self.wasted_macs.get(cause, 0) + macs


class BackendScript:
    """Runs batches through a backend, for as long as the truth says."""

    def __init__(self, backend: FakeBackend, truth: StageCosts) -> None:
        self._backend = backend
        self._truth = truth

    def run(self, batch: StageRun) -> tuple[StageResult, float]:
        result = run_stage(self._backend, batch)
        size, num_classified = len(batch.images), batch.num_classified
        return result, self._truth.expected_s(batch.stage, size, num_classified)


def profiled(
    *,
    max_batch: int = 4,
    num_stages: int = COSTS.num_exits,
    trunk_s: float = 1.0,
    classifier_s: float = 0.0,
    per_image_s: float = 0.0,
) -> StageCosts:
    """Return costs that are the same for all stages, unless told otherwise of the test network."""
    costs = StageCosts(max_batch=max_batch)
    for stage_index in range(num_stages):
        for size in costs.buckets:
            costs.profile(
                StageKey(KEY, stage_index),
                size,
                trunk_s=trunk_s + per_image_s * size,
                classifier_s=classifier_s,
            )
    return costs


class EngineSimulation(Simulation):
    """A simulation of the test network; stages take what is profiled unless told otherwise."""

    def __init__(
        self,
        *,
        confidences=(0.3, 0.5, 0.7, 0.9),
        confidences_by_image=None,
        trunk_s=1.0,
        classifier_s=0.0,
        per_image_s=0.0,
        max_batch=4,
        limits=None,
        margin_s=0.0,
        hooks=(),
        can_join=True,
        image_shape=None,
        num_lanes=1,
    ) -> None:
        times = {"trunk_s": trunk_s, "classifier_s": classifier_s, "per_image_s": per_image_s}
        self.costs = profiled(max_batch=max_batch, **times)
        self.costs_of_truth = profiled(max_batch=max_batch, **times)
        self.model = ServedModel(KEY, COSTS, (1.0,) * 4, border_bytes=8, input_shape=(3, 2, 2))
        self.observer = RecordingObserver()
        script = FakeModel(
            confidences, confidences_by_image=confidences_by_image or {}, image_shape=image_shape
        )
        self.backend = FakeBackend({KEY: script}, hooks=hooks, can_join=can_join)
        super().__init__(
            Setup(
                {KEY: self.model},
                self.costs,
                limits=limits or EngineLimits(),
                margin=AnswerMargin(initial_s=margin_s),
                num_lanes=num_lanes,
                can_join=can_join,
            ),
            BackendScript(self.backend, self.costs_of_truth),
            observer=self.observer,
            clock=VirtualClock(),
        )

    def ask(
        self,
        number=0,
        *,
        deadline_at=None,
        due_at=None,
        budget_macs=None,
        min_confidence=None,
        min_exit=0,
        max_exit=3,
        every_classifier=False,
    ) -> Asked:
        """Admit a single request, as the event loop would."""
        limits = ExitLimits(
            deadline_at, budget_macs, min_confidence, min_exit, max_exit, every_classifier
        )
        if due_at is None:
            due_at = self.clock.now() + 100.0 if deadline_at is None else deadline_at
        return self.submit(KEY, numbered_images([number]), limits, due_at=due_at)

    def ask_window(
        self, numbers: Sequence[int], policy: CohortPolicy, *, deadline_at=None, charge=None
    ) -> Asked:
        """Admit images that are decided together."""
        due_at = self.clock.now() + 100.0 if deadline_at is None else deadline_at
        return self.submit_window(
            KEY,
            numbered_images(numbers),
            policy,
            due_at=due_at,
            deadline_at=deadline_at,
            charge=charge,
        )

    def terms(self, *, num_images: int, num_at_once: int, deadline_at=None) -> Terms:
        """What a batch in windows asks of admission."""
        due_at = 100.0 if deadline_at is None else deadline_at
        return Terms(KEY, num_images, due_at, deadline_at, num_at_once=num_at_once)

    @property
    def stages_run(self) -> list[tuple[int, tuple[int, ...]]]:
        """Which images ran which stage, in order."""
        return [(call.stage.stage_index, call.images) for call in self.backend.calls]


@pytest.fixture
def model_key():
    return KEY


@pytest.fixture
def exit_costs():
    return COSTS


@pytest.fixture
def gain_table():
    return ServedModel(KEY, COSTS, (1.0,) * 4, 8, (3, 2, 2)).gain_table


@pytest.fixture
def simulate():
    return EngineSimulation


@pytest.fixture
def recording_observer():
    return RecordingObserver()


@pytest.fixture
def make_costs():
    return profiled
