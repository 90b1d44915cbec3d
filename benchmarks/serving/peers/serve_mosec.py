"""mosec around the static graph; run by `benchmarks.serving.peers.mosec` in its environment.

`timeout` is mosec's own: from the request's arrival to its answer, judged by the front end in Rust,
answered 408; what waits for a worker then is dropped. A full queue is answered 429.
"""

import os
import sys
from typing import Final

import numpy as np
from mosec import Server, ValidationError, Worker  # type: ignore[import-not-found]  # as litserve
from numpy.typing import NDArray

from benchmarks.serving.peers.static_model import PeerSpec, StaticModel

_NEVER_MS: Final = 60_000
_FORWARD_LIMIT_S: Final = 10.0  # mosec's other timeout ends a whole batch: not what expiry is for


class StaticWorker(Worker):  # type: ignore[misc]  # untyped
    """The network as mosec wants it: bodies one by one, batches as lists."""

    def __init__(self) -> None:
        super().__init__()
        self._model = StaticModel(PeerSpec.from_environment())

    def deserialize(self, data: bytes) -> NDArray[np.uint8]:
        """Return the pixels of one body."""
        try:
            return self._model.decode(bytes(data))
        except (OSError, ValueError) as error:
            raise ValidationError(str(error)) from error

    def forward(self, data: list[NDArray[np.uint8]] | NDArray[np.uint8]) -> list[int] | int:
        """Run a batch, or the one image that comes without a list where batches are of one."""
        if isinstance(data, list):
            return self._model.labels(data)
        return self._model.labels([data])[0]

    def serialize(self, data: int) -> bytes:
        """Return the answer's JSON."""
        return b'{"label_index":%d}' % data


def main() -> None:
    """Serve until stopped."""
    spec = PeerSpec.from_environment()
    # Only arguments set the wait to zero: `append_worker` takes that for "as the arguments say".
    sys.argv[1:] = ["--wait", str(round(spec.batch_wait_ms))]
    timeout_ms = _NEVER_MS if spec.timeout_ms is None else round(spec.timeout_ms)
    os.environ |= {
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": str(spec.port),
        "MOSEC_TIMEOUT": str(timeout_ms),
        "MOSEC_CAPACITY": str(spec.queue_size),
        "MOSEC_LOG_LEVEL": "error",  # a line for every request given up would cost it time
        "MOSEC_PATH": f"{spec.ready_folder}/sockets",
    }
    server = Server()
    server.append_worker(
        StaticWorker,
        num=spec.workers,
        max_batch_size=spec.max_batch_size,
        max_wait_time=round(spec.batch_wait_ms),
        timeout=_FORWARD_LIMIT_S,
        route="/classify",
    )
    server.run()


if __name__ == "__main__":
    main()
