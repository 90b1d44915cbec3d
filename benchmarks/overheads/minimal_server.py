"""The least server of the same stages: whatever waits is a batch and goes straight to the end.

`python -m benchmarks.overheads.minimal_server {inline,lanes} --threads T` listens on
``ANYTIME_PORT``. ``inline`` runs the stages on the event loop itself, which reads and answers
nothing meanwhile; ``lanes`` hands batches to as many threads as cores allow. No admission, no
deadline, no exit before the last, no batch that changes on its way: it is no engine of ours with
its loop elsewhere, only what is left when everything but the place of the work is the same.
"""

import argparse
import asyncio
import io
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.offline import key_of
from model_store.preprocessing import normalise
from model_store.reader import Bundle, open_bundle
from service.backends.base import FeatureRows, StageKey
from service.backends.onnx_runtime import OnnxRuntimeBackend
from service.settings import Settings

_MAX_BATCH = 8  # where the default bundle's images are cheapest, on one thread and on two

Logits = NDArray[np.float32]
RunBatch = Callable[[NDArray[np.uint8]], Awaitable[Logits]]


class Batcher:
    """Gathers what waits into batches. Mutable; owned by one event loop.

    Args:
        run: Pixels ``(B, H, W, 3)`` to logits ``(B, classes)``.
    """

    def __init__(self, run: RunBatch) -> None:
        self._run = run
        self._waiting: deque[tuple[NDArray[np.uint8], asyncio.Future[Logits]]] = deque()
        self._is_waited_for = asyncio.Event()

    async def classify(self, pixels: NDArray[np.uint8]) -> Logits:
        """Return the logits of one image, shape ``(classes,)``."""
        answer: asyncio.Future[Logits] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, answer))
        self._is_waited_for.set()
        return await answer

    async def serve(self) -> None:
        """Run batches until cancelled."""
        while True:
            await self._is_waited_for.wait()
            size = min(len(self._waiting), _MAX_BATCH)
            batch = [self._waiting.popleft() for _ in range(size)]
            if not self._waiting:
                self._is_waited_for.clear()
            if batch:
                logits = await self._run(np.stack([pixels for pixels, _ in batch]))
                for (_, answer), row in zip(batch, logits, strict=True):
                    if not answer.done():
                        answer.set_result(row)
            await asyncio.sleep(0)  # so that what came in meanwhile is read


def main() -> int:
    """Serve one of the two until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("inline", "lanes"))
    parser.add_argument("--threads", type=int, default=1, help="of the runtime, for each graph")
    parser.add_argument("--bundle", type=Path, required=True)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    num_lanes = len(os.sched_getaffinity(0)) // options.threads if options.kind == "lanes" else 1
    run = _to_the_end(bundle, options.threads)
    run_batch = _in_threads(run, num_lanes) if options.kind == "lanes" else _inline(run)
    uvicorn.run(
        _application(run_batch, num_lanes),
        host="127.0.0.1",
        port=Settings().port,
        log_config=None,
        access_log=False,
    )
    return 0


def _to_the_end(bundle: Bundle, num_threads: int) -> Callable[[NDArray[np.uint8]], Logits]:
    key, image = key_of(bundle), bundle.manifest.input
    backend = OnnxRuntimeBackend({key: bundle}, device="cpu", num_threads=num_threads)
    last = len(bundle.manifest.stages) - 1

    def run(pixels: NDArray[np.uint8]) -> Logits:
        rows = tuple(range(len(pixels)))
        features = backend.put(key, normalise(pixels, mean=image.mean, std=image.std))
        for stage_index in range(last):
            parts = [FeatureRows(features, rows)]
            output = backend.submit(StageKey(key, stage_index), parts, classify=()).result()
            features = output.features
        parts = [FeatureRows(features, rows)]
        return backend.submit(StageKey(key, last), parts, classify=rows).result().logits

    return run


def _inline(run: Callable[[NDArray[np.uint8]], Logits]) -> RunBatch:
    async def run_batch(pixels: NDArray[np.uint8]) -> Logits:
        return run(pixels)

    return run_batch


def _in_threads(run: Callable[[NDArray[np.uint8]], Logits], num_lanes: int) -> RunBatch:
    threads = ThreadPoolExecutor(num_lanes)

    async def run_batch(pixels: NDArray[np.uint8]) -> Logits:
        return await asyncio.get_running_loop().run_in_executor(threads, run, pixels)

    return run_batch


def _application(run_batch: RunBatch, num_lanes: int) -> Starlette:
    batcher = Batcher(run_batch)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        serving = [asyncio.create_task(batcher.serve()) for _ in range(num_lanes)]
        yield
        for task in serving:
            task.cancel()

    async def classify(request: Request) -> JSONResponse:
        pixels = np.load(io.BytesIO(await request.body()))
        logits = await batcher.classify(pixels)
        return JSONResponse({"index": int(logits.argmax())})

    async def ready(_request: Request) -> JSONResponse:
        return JSONResponse({"ready": True})

    routes = [Route("/classify", classify, methods=["POST"]), Route("/health/ready", ready)]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    sys.exit(main())
