"""A served model of three exits, every answer scripted, and its services on a real engine."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from model_store.calibration import Calibration
from model_store.catalog import Catalog
from model_store.layout import FORMAT_VERSION
from model_store.manifest import Graph, ImageInput, ManifestDraft, Provenance, Stage, TensorSpec
from model_store.writer import write_bundle
from service.backends.base import StageKey
from service.backends.fake import FakeBackend, FakeModel, StageHook
from service.batch import BatchService
from service.classify import ClassifyService
from service.decode import Decoder
from service.engine.clock import MonotonicClock
from service.engine.engine import Engine
from service.engine.observer import Observer, SilentObserver
from service.engine.request import EngineLimits
from service.engine.stage_costs import StageCosts
from service.models import Models, open_models
from service.plan import PlanService
from service.uploads import UploadLimits

TRUNKS, CLASSIFIERS = (100, 200, 300), (10, 20, 30)
SIZE = 8
NUM_CLASSES = 4


def _scripted_bundle(
    root: Path,
    *,
    name: str = "scripted",
    version: int = 1,
    runtime: Literal["onnx", "torchscript"] = "onnx",
) -> Path:
    """Write a bundle whose graphs are never opened."""
    suffix = "onnx" if runtime == "onnx" else "pt"
    stages = tuple(
        Stage(
            trunk=Graph(file=f"graphs/trunk-{k}.{suffix}", macs=trunk),
            outputs=(TensorSpec(name=f"features_{k}", shape=(2, 4, 4)),),
            classifier=Graph(file=f"graphs/classifier-{k}.{suffix}", macs=classifier),
            classifier_inputs=(f"features_{k}",),
        )
        for k, (trunk, classifier) in enumerate(zip(TRUNKS, CLASSIFIERS, strict=True))
    )
    draft = ManifestDraft(
        format_version=FORMAT_VERSION,
        name=name,
        version=version,
        runtime=runtime,
        executable=runtime == "torchscript",
        labels=("cat", "dog", "frog", "ship"),
        input=ImageInput(
            height=SIZE, width=SIZE, channels=3, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
        ),
        stages=stages,
        compaction=None,
        calibration="calibration.npz",
        provenance=Provenance(
            recipe={},
            data_digest="0" * 64,
            seed=0,
            versions={},
            results={},
            created_at=datetime(2026, 1, 2, tzinfo=UTC),
            note=None,
        ),
    )
    random = np.random.default_rng(0)
    labels = random.integers(NUM_CLASSES, size=200)
    logits = random.normal(size=(200, 3, NUM_CLASSES))
    # Deeper exits are right more often and surer of it.
    logits[np.arange(200), :, labels] += (1.0, 2.0, 3.0)
    # At temperature 1 the scripted confidences are the calibrated ones.
    calibration = Calibration(
        labels=labels,
        logits=logits.astype(np.float16),
        is_fitting=np.arange(200) < 80,
        temperatures=np.ones(3),
    )
    return write_bundle(root, draft, dict.fromkeys(draft.graph_files, b"-"), calibration)


def _first_pixel(image: np.ndarray) -> int:
    return round(float(image.flat[0]) * 255)


@dataclass(frozen=True)
class World:
    """Services on a running engine."""

    models: Models
    backend: FakeBackend
    engine: Engine
    classify: ClassifyService
    batch: BatchService
    plan: PlanService

    @property
    def stages_run(self) -> list[tuple[int, int, int]]:
        """Stage, images and images classified of every call, in order."""
        return [
            (call.stage.stage_index, len(call.images), len(call.classify))
            for call in self.backend.calls
        ]


@pytest.fixture(scope="session")
def scripted_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that holds ``scripted@1``."""
    root = tmp_path_factory.mktemp("roots")
    _scripted_bundle(root)
    return root


@pytest.fixture(scope="session")
def write_scripted_bundle() -> Callable[..., Path]:
    """Writes a bundle of dummy graphs into a root: `name`, `version`, `runtime`."""
    return _scripted_bundle


@pytest.fixture
def running(scripted_root: Path) -> Callable[..., AbstractAsyncContextManager[World]]:
    """Starts services whose answers are scripted.

    `confidences` are those of every image's exits, `by_image` of single ones (an image is known by
    its first pixel's red), `hooks` and `stage_s` what stages do and are expected to take.
    """

    @asynccontextmanager
    async def start(
        confidences: tuple[float, ...] = (0.5, 0.7, 0.9),
        *,
        by_image: dict[int, tuple[float, ...]] | None = None,
        hooks: Sequence[StageHook] = (),
        stage_s: tuple[float, float, float] = (0.0, 0.0, 0.0),
        window_size: int = 256,
        limits: EngineLimits | None = None,
        observer: Observer | None = None,
    ) -> AsyncIterator[World]:
        models = open_models(Catalog([scripted_root]), default=None, allow_executable=False)
        script = FakeModel(
            confidences,
            confidences_by_image=by_image or {},
            num_classes=NUM_CLASSES,
            number_of=_first_pixel,
        )
        backend = FakeBackend({models.default: script}, hooks=hooks)
        clock, costs = MonotonicClock(), StageCosts(max_batch=8)
        engine = Engine(
            backend=backend,
            models={model.key: model.served for model in models},
            costs=costs,
            limits=limits or EngineLimits(),
            clock=clock,
            observer=observer or SilentObserver(),
        )
        _expect(costs, models, stage_s)
        engine.start()
        decoder = Decoder(UploadLimits())
        try:
            yield World(
                models=models,
                backend=backend,
                engine=engine,
                classify=ClassifyService(models, decoder, engine, clock, soft_deadline_s=2.0),
                batch=BatchService(models, decoder, engine, clock, window_size, 60.0),
                plan=PlanService(models, window_size),
            )
        finally:
            engine.close()
            decoder.close()

    return start


def _expect(costs: StageCosts, models: Models, stage_s: tuple[float, ...]) -> None:
    for stage_index, seconds in enumerate(stage_s):
        stage = StageKey(models.default, stage_index)
        for bucket in costs.buckets:
            costs.profile(stage, bucket, trunk_s=bucket * seconds, classifier_s=0.0)
