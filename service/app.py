"""Composition root: builds the parts of a server and joins them."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Final

from prometheus_client import CollectorRegistry

from model_store.catalog import Catalog
from model_store.reader import Bundle
from service.api.application import Application, upload_limits
from service.backends.base import ModelKey, StageBackend
from service.backends.onnx_runtime import OnnxRuntimeBackend, find_device
from service.backends.processes.backend import LaneProcesses, LaneProcessOptions
from service.decode import Decoder
from service.engine.clock import Clock, MonotonicClock
from service.engine.cores import usable_cores
from service.engine.engine import Engine
from service.engine.lane_layout import LaidOut, choose_layout, layouts_of
from service.engine.lane_making import LaneOptions
from service.engine.observer import Observer
from service.engine.request import EngineLimits
from service.engine.stage_costs import StageCosts
from service.front import Front
from service.metrics import EngineMetrics, new_registry
from service.models import MixedRuntimes, Models, open_models
from service.settings import Settings

EXIT_WEDGED: Final = 70  # EX_SOFTWARE of sysexits.h; a supervisor restarts on any failure
_FAREWELL_S: Final = 0.5  # for answers to leave in before the process does
_MIB: Final = 2**20
# A thread that waits for a core while it holds the interpreter keeps the event loop waiting, too.
_MOST_NICE_THREAD: Final = 10

logger = logging.getLogger(__name__)

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
    num_threads = settings.threads or 1
    if runtimes == {"torchscript"}:
        # Imported where it is needed: a server of ONNX graphs is installed without torch.
        build: Callable[..., StageBackend] = import_module(
            "service.backends.torchscript"
        ).TorchScriptBackend
        return build(bundles, device=settings.device, num_threads=num_threads)
    device = find_device(settings.device, bundles.values())
    if device.is_cuda or not settings.lane_processes:
        return OnnxRuntimeBackend(bundles, device=str(device), num_threads=num_threads)
    return LaneProcesses(
        bundles,
        LaneProcessOptions(
            num_processes=settings.lanes or 1,
            num_threads=num_threads,
            niceness=settings.lane_nice,
            max_feature_bytes=settings.max_feature_mib * _MIB,
        ),
    )


@dataclass(frozen=True, slots=True)
class EngineRoom:
    """An engine, what it serves, and what that runs on."""

    models: Models
    engine: Engine
    backend: StageBackend

    @contextmanager
    def run(
        self, *, wedged_s: float, last_words: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Warm the engine up and run it on this event loop until the block ends.

        Args:
            wedged_s: A stage that runs for so long ends the process.
            last_words: Called before it does.
        """
        self.engine.warm_up()
        self.engine.start()
        self.engine.watch(wedged_s=wedged_s, on_wedged=partial(_give_up, last_words))
        # What start-up made lives as long as the process: a full collection need not walk it again.
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            self.engine.close()
            self.backend.close()


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
    registry, clock = new_registry(), MonotonicClock()
    room = furnish(settings, build, registry, clock)
    decoder = Decoder(upload_limits(settings))
    front = Front(
        models=room.models,
        engine=room.engine,
        backend_name=room.backend.name,
        device=room.backend.device,
        decoder=decoder,
        registry=registry,
        clock=clock,
    )

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        with room.run(wedged_s=settings.wedged_s):
            try:
                yield
            finally:
                decoder.close()

    return front.application(settings, lifespan)


def furnish(
    settings: Settings, build: BackendBuilder, registry: CollectorRegistry, clock: Clock
) -> EngineRoom:
    """Return an engine for everything in the settings' roots, not warmed up; see `create_app`."""
    models = open_served(settings)
    metrics = EngineMetrics(registry)
    laid_out = lay_out(models, settings, build, clock)
    engine = build_engine(models, settings, laid_out, clock=clock, observer=metrics)
    metrics.watch_queues(engine.queue_depths)
    return EngineRoom(models, engine, laid_out.backend)


def open_served(settings: Settings) -> Models:
    """Open every bundle of the settings' roots; all processes number them alike.

    Raises:
        BundleError: A bundle is damaged or foreign.
        NoDefaultModel: There is no telling which model answers by default.
    """
    return open_models(
        Catalog(settings.model_store),
        default=settings.default_model,
        allow_executable=settings.allow_torchscript,
    )


def lay_out(models: Models, settings: Settings, build: BackendBuilder, clock: Clock) -> LaidOut:
    """Build the backend for as many lanes as suit the machine, or as the settings say."""
    bundles = {model.key: model.bundle for model in models}
    layouts = layouts_of(usable_cores(), num_lanes=settings.lanes, num_threads=settings.threads)
    return choose_layout(
        lambda layout: build(
            bundles,
            settings.model_copy(update={"lanes": layout.num_lanes, "threads": layout.num_threads}),
        ),
        models.find(None).served,
        layouts,
        clock=clock,
    )


def build_engine(
    models: Models, settings: Settings, laid_out: LaidOut, *, clock: Clock, observer: Observer
) -> Engine:
    """Return the engine for what is served, not warmed up."""
    return Engine(
        backend=laid_out.backend,
        models={model.key: model.served for model in models},
        costs=StageCosts(max_batch=settings.max_batch),
        limits=engine_limits(settings),
        clock=clock,
        observer=observer,
        lanes=LaneOptions(
            laid_out.layout.num_lanes,
            min(settings.lane_nice, _MOST_NICE_THREAD),
            fills_cores=laid_out.backend.device == "cpu"
            and laid_out.layout.num_lanes * laid_out.layout.num_threads >= usable_cores(),
        ),
    )


def engine_limits(settings: Settings) -> EngineLimits:
    """Return how much may be in flight."""
    return EngineLimits(
        max_in_flight=settings.max_in_flight,
        max_feature_bytes=settings.max_feature_mib * _MIB,
        background_share=settings.background_share,
    )


def _give_up(last_words: Callable[[], None]) -> None:
    """End the process once callers have been told: a stage hangs, and nothing ends a thread."""
    logger.critical("a stage of the network hangs; the process ends to be restarted")
    last_words()
    asyncio.get_running_loop().call_later(_FAREWELL_S, os._exit, EXIT_WEDGED)
