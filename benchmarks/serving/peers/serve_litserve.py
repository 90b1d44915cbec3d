"""LitServe around the static graph; run by `benchmarks.serving.peers.litserve` in its environment.

`timeout` is LitServe's own: judged when a worker takes the request from the queue, answered 504.
It has no limit to its queue, and without one answers nothing in time above its capacity: the limit
here, answered 503, is what a careful user would add by its `middlewares`.
"""

import math
from typing import Annotated, Final

import litserve  # type: ignore[import-not-found]  # of the peer's environment, not the project's
import numpy as np
from fastapi import Depends, HTTPException, Request
from numpy.typing import NDArray
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.serving.peers.static_model import PeerSpec, StaticModel

_NEVER: Final = -1


class InFlightLimit:
    """Refuses requests while too many others are waiting in this HTTP process."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._num_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._num_in_flight >= self._limit:
            await Response(status_code=503)(scope, receive, send)
            return
        self._num_in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_in_flight -= 1


async def read_body(request: Request) -> bytes:
    """Return the body as it is; LitServe would take it for JSON."""
    return await request.body()


class StaticApi(litserve.LitAPI):  # type: ignore[misc]  # untyped
    """The network as LitServe's batched loop wants it: decode each, predict all, encode each."""

    def __init__(self, spec: PeerSpec) -> None:
        super().__init__(
            max_batch_size=spec.max_batch_size,
            batch_timeout=spec.batch_wait_ms / 1e3,
            api_path="/classify",
        )
        self._served = spec

    def setup(self, device: str) -> None:  # noqa: ARG002 - always the CPU
        """Load the graph in a worker."""
        self._model = StaticModel(self._served)

    def decode_request(self, request: Annotated[bytes, Depends(read_body)]) -> NDArray[np.uint8]:
        """Return the pixels of one body."""
        try:
            return self._model.decode(request)
        except (OSError, ValueError) as error:
            raise HTTPException(422, str(error)) from error

    def batch(self, inputs: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Leave stacking to the model."""
        return inputs

    def predict(self, x: list[NDArray[np.uint8]] | NDArray[np.uint8]) -> list[int]:
        """Run a batch, or the one image that comes without a list where batches are of one."""
        return self._model.labels(x if isinstance(x, list) else [x])

    def unbatch(self, output: list[int]) -> list[int]:
        """Return the labels: they are apart already."""
        return output

    def encode_response(self, output: int | list[int]) -> dict[str, int]:
        """Return what becomes the answer's JSON."""
        return {"label_index": output if isinstance(output, int) else output[0]}


def main() -> None:
    """Serve until stopped."""
    spec = PeerSpec.from_environment()
    server = litserve.LitServer(
        StaticApi(spec),
        accelerator="cpu",
        devices=1,
        workers_per_device=spec.workers,
        middlewares=[(InFlightLimit, {"limit": math.ceil(spec.queue_size / spec.front_ends)})],
        timeout=_NEVER if spec.timeout_ms is None else spec.timeout_ms / 1e3,
    )
    server.run(
        host="127.0.0.1",
        port=spec.port,
        num_api_servers=spec.front_ends,
        log_level="critical",  # a line for every request given up would cost it time
        generate_client_file=False,
        pretty_logs=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
