"""The service with a backend that computes nothing, or a bare Starlette route that reads the body.

`python -m benchmarks.fake_server {service,bare}` listens on ``ANYTIME_PORT``: what remains of a
request when the network costs nothing, and the least that any Python server would take for it.
"""

import argparse
import os
import sys
from collections.abc import Mapping

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from model_store.reader import Bundle
from service.app import create_app
from service.backends.base import ModelKey, StageBackend
from service.backends.fake import FakeBackend, FakeModel
from service.settings import Settings

_CONFIDENCE = 0.9


def main() -> int:
    """Serve one of the two until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("service", "bare"))
    kind = parser.parse_args().kind
    application = _bare() if kind == "bare" else _service()
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=int(os.environ["ANYTIME_PORT"]),
        log_config=None,
        access_log=False,
    )
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


def _service() -> ASGIApp:
    return create_app(Settings(), build=_free_backend)


def _free_backend(bundles: Mapping[ModelKey, Bundle], _settings: Settings) -> StageBackend:
    return FakeBackend(
        {
            key: FakeModel(
                confidences=(_CONFIDENCE,) * len(bundle.manifest.stages),
                num_classes=len(bundle.manifest.labels),
                number_of=lambda _image: 0,
            )
            for key, bundle in bundles.items()
        }
    )


if __name__ == "__main__":
    sys.exit(main())
