"""The service with nothing to compute, and the least that any Python server would take.

`python -m benchmarks.fake_server {service,undecoded,engineless,bare}` listens on ``ANYTIME_PORT``:
the service with a backend that answers from a table; the same, and whose decoder looks at nothing
either; the same with an engine that answers at once; or a bare Starlette route that reads the body.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.free_backend import free_backend
from model_store.catalog import Catalog
from model_store.confidence import max_softmax
from service.api.application import Application, Surroundings, create_application, upload_limits
from service.api.health import Health
from service.api.server import DrainingServer
from service.api.services import Services
from service.app import build_engine, create_app, lay_out
from service.batch import BatchService
from service.classify import ClassifyService
from service.decode import Decoder, ImageSize, Pixels
from service.engine.clock import MonotonicClock
from service.engine.engine import Engine
from service.engine.margin import AnswerMargin
from service.engine.request import Answer, ExitReason, ExitRecord, ImageOutcome, Terms
from service.engine.reservation import Reservation
from service.metrics import EngineMetrics, new_registry
from service.models import Model, Models, open_models
from service.plan import PlanService
from service.served import ServedModels
from service.settings import Settings
from service.uploads import Upload, UploadLimits


def main() -> int:
    """Serve one of them until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("service", "undecoded", "engineless", "bare"))
    kind = parser.parse_args().kind
    settings = Settings()
    if kind == "bare":
        uvicorn.run(
            _bare(), host="127.0.0.1", port=settings.port, log_config=None, access_log=False
        )
        return 0
    make = {"service": _service, "undecoded": _undecoded, "engineless": _engineless}[kind]
    DrainingServer(make(settings), settings, MonotonicClock()).run()
    return 0


def _bare() -> Starlette:
    async def answer(request: Request) -> JSONResponse:
        body = await request.body()
        return JSONResponse({"bytes": len(body)})

    async def ready(_request: Request) -> JSONResponse:
        return JSONResponse({"ready": True})

    return Starlette(
        routes=[
            Route("/classify", answer, methods=["POST"]),
            Route("/health/ready", ready),
        ]
    )


def _service(settings: Settings) -> Application:
    return create_app(settings, build=free_backend)


def _undecoded(settings: Settings) -> Application:
    """Return what `create_app` makes, with another decoder."""
    models = open_models(Catalog(settings.model_store), default=None, allow_executable=False)
    registry, clock = new_registry(), MonotonicClock()
    laid_out = lay_out(models, settings, free_backend, clock)
    engine = build_engine(models, settings, laid_out, clock=clock, observer=EngineMetrics(registry))
    decoder = _free_decoder(settings, models)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        engine.warm_up()
        engine.start()
        try:
            yield
        finally:
            engine.close()
            decoder.close()

    services = Services(
        ClassifyService(
            models, decoder, engine, clock, soft_deadline_s=settings.soft_deadline_ms / 1000
        ),
        BatchService(models, decoder, engine, clock, settings.batch_window, 60.0),
        PlanService(models, settings.batch_window),
        ServedModels(models, engine, backend_name="free", device="cpu"),
    )
    health = Health(is_engine_alive=lambda: engine.is_alive, served=tuple)
    return create_application(services, Surroundings(settings, health, registry, lifespan, clock))


def _engineless(settings: Settings) -> Application:
    """Return what is in front of the engine, alone."""
    models = open_models(Catalog(settings.model_store), default=None, allow_executable=False)
    registry, clock = new_registry(), MonotonicClock()
    engine = cast("Engine", _FreeEngine(models.find(None)))
    classify = ClassifyService(
        models,
        _free_decoder(settings, models),
        engine,
        clock,
        soft_deadline_s=settings.soft_deadline_ms / 1000,
    )
    batch = BatchService(models, Decoder(upload_limits(settings)), engine, clock, 1, 60.0)
    plan = PlanService(models, settings.batch_window)
    served = ServedModels(models, engine, backend_name="free", device="cpu")
    return create_application(
        Services(classify, batch, plan, served),
        Surroundings(
            settings, Health(is_engine_alive=lambda: True, served=tuple), registry, clock=clock
        ),
    )


class _FreeTicket:
    """An image that has arrived already."""

    def __init__(self, outcome: ImageOutcome) -> None:
        self.outcome = asyncio.get_running_loop().create_future()
        self.outcome.set_result(outcome)

    def abandon(self) -> None:
        """There is nothing to abandon."""


class _FreePlace(Reservation):
    """Takes no room."""

    def release(self) -> None:
        """There is nothing to give back."""


class _FreeEngine:
    """Has the same answer for every image, at once."""

    def __init__(self, model: Model) -> None:
        self.margin = AnswerMargin()
        logits = np.arange(len(model.bundle.manifest.labels)).astype(np.float32)
        confidence = float(max_softmax(logits, model.served.temperatures[-1]))
        record = ExitRecord(model.served.costs.num_exits - 1, logits, confidence)
        answer = Answer(record, ExitReason.LAST_EXIT, (record,))
        self._outcome = ImageOutcome(answer, None, 1, 0.0, 0.0)

    def reserve(self, _terms: Terms) -> "_FreePlace":
        """Hold a place; a request whose body comes in pieces asks for one."""
        return _FreePlace()

    def submit(self, *_: object, **__: object) -> _FreeTicket:
        """Answer."""
        return _FreeTicket(self._outcome)


def _free_decoder(settings: Settings, models: Models) -> "_FreeDecoder":
    image = models.find(None).bundle.manifest.input
    return _FreeDecoder(upload_limits(settings), ImageSize(image.height, image.width))


class _FreeDecoder(Decoder):
    """Has the same black picture for every upload."""

    def __init__(self, limits: UploadLimits, size: ImageSize) -> None:
        super().__init__(limits)
        self._black = np.zeros((size.height, size.width, 3), np.uint8)

    def decode_at_once(
        self, upload: Upload, *, size: ImageSize, worked: object = None
    ) -> Pixels | None:
        """Return black."""
        del upload, size, worked
        return self._black


if __name__ == "__main__":
    sys.exit(main())
