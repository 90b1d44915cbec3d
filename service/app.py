"""Composition root: builds the parts of a server and joins them."""

import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import import_module

from model_store.catalog import Catalog
from model_store.reader import Bundle
from service.api.application import (
    Application,
    Lifespan,
    Surroundings,
    create_application,
    upload_limits,
)
from service.api.health import Health
from service.api.services import Services
from service.backends.base import ModelKey, StageBackend
from service.backends.onnx_runtime import OnnxRuntimeBackend
from service.batch import BatchService
from service.classify import ClassifyService
from service.decode import Decoder
from service.engine.clock import Clock, MonotonicClock
from service.engine.engine import Engine
from service.engine.request import EngineLimits
from service.engine.stage_costs import StageCosts
from service.metrics import EngineMetrics, new_registry
from service.models import MixedRuntimes, Models, open_models, reference_of
from service.plan import PlanService
from service.served import ServedModels
from service.settings import Settings

_MIB = 2**20

BackendBuilder = Callable[[Mapping[ModelKey, Bundle], Settings], StageBackend]


def build_backend(bundles: Mapping[ModelKey, Bundle], settings: Settings) -> StageBackend:
    """Return the runtime that the bundles are for; one process serves bundles of one kind.

    Raises:
        BackendFailed: A graph does not fit its manifest, or the device is not there.
        MixedRuntimes: The bundles need different runtimes.
    """
    runtimes = {bundle.manifest.runtime for bundle in bundles.values()}
    if len(runtimes) > 1:
        raise MixedRuntimes(f"one process serves one runtime, the bundles need {sorted(runtimes)}")
    build: Callable[..., StageBackend] = OnnxRuntimeBackend
    if runtimes == {"torchscript"}:
        # Imported where it is needed: a server of ONNX graphs is installed without torch.
        build = import_module("service.backends.torchscript").TorchScriptBackend
    return build(bundles, device=settings.device, num_threads=settings.num_threads)


def create_app(settings: Settings, *, build: BackendBuilder = build_backend) -> Application:
    """Return the application that serves everything in the settings' roots.

    Bundles are opened and verified here; the engine is warmed up and started by the lifespan.

    Args:
        settings: All knobs.
        build: Makes the backend; another one is for measuring the server without its network.

    Raises:
        BundleError: A bundle is damaged or foreign.
        NoDefaultModel: There is no telling which model answers by default.
        BackendFailed: A graph does not fit its manifest, or the device is not there.
    """
    models = open_models(
        Catalog(settings.model_store),
        default=settings.default_model,
        allow_executable=settings.allow_torchscript,
    )
    registry, clock = new_registry(), MonotonicClock()
    backend = build({model.key: model.bundle for model in models}, settings)
    engine = Engine(
        backend=backend,
        models={model.key: model.served for model in models},
        costs=StageCosts(max_batch=settings.max_batch),
        limits=EngineLimits(
            max_in_flight=settings.max_in_flight,
            max_feature_bytes=settings.max_feature_mib * _MIB,
        ),
        clock=clock,
        observer=EngineMetrics(registry),
    )
    decoder = Decoder(upload_limits(settings))
    health = Health(
        is_engine_alive=lambda: engine.is_alive,
        served=lambda: tuple(sorted(reference_of(model.key) for model in models)),
    )
    return create_application(
        _services(
            settings, models=models, engine=engine, backend=backend, decoder=decoder, clock=clock
        ),
        Surroundings(
            settings=settings,
            health=health,
            registry=registry,
            lifespan=_lifespan(engine, backend, decoder),
            clock=clock,
        ),
    )


def _services(
    settings: Settings,
    *,
    models: Models,
    engine: Engine,
    backend: StageBackend,
    decoder: Decoder,
    clock: Clock,
) -> Services:
    return Services(
        classify=ClassifyService(
            models=models,
            decoder=decoder,
            engine=engine,
            clock=clock,
            soft_deadline_s=settings.soft_deadline_ms / 1000,
        ),
        batch=BatchService(
            models=models,
            decoder=decoder,
            engine=engine,
            clock=clock,
            window_size=settings.batch_window,
            soft_deadline_s=settings.batch_soft_deadline_ms / 1000,
        ),
        plan=PlanService(models, settings.batch_window),
        models=ServedModels(models, engine, backend_name=backend.name, device=backend.device),
    )


def _lifespan(engine: Engine, backend: StageBackend, decoder: Decoder) -> Lifespan:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        engine.warm_up()
        engine.start()
        # What start-up made lives as long as the process: a full collection need not walk it again.
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            engine.close()
            decoder.close()
            backend.close()

    return lifespan
