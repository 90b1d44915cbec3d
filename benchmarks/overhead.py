"""What the server adds to the stages, in CPU-seconds an image, as a ratio within one run.

`python -m benchmarks.overhead` starts the server, then alternates between sending images and
running the bare stage loop, both on one thread and at full depth, and prints the ratio of the
medians: through `/batch` against a loop at the server's largest batch, and through `/classify`, one
request at a time, against a loop at batch 1.
"""

import io
import statistics
import subprocess
import sys
from collections.abc import Callable

import httpx
import numpy as np

from benchmarks.server_process import ServerProcess, serving
from service.settings import Settings

_ROUNDS = 5
_BATCH_IMAGES = 2048
_SINGLE_IMAGES = 300
_LIMIT_S = 120.0


def main() -> int:
    """Run both comparisons and print them as Markdown."""
    size = Settings().max_batch
    threads = {"ANYTIME_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with serving(threads) as server, httpx.Client(base_url=server.url, timeout=_LIMIT_S) as client:
        sys.stdout.write("| through | server, CPU ms an image | bare stage loop | ratio |\n")
        sys.stdout.write("|:--|--:|--:|--:|\n")
        _compare("`/batch`", server, _send_batch(client), images=_BATCH_IMAGES, batch_size=size)
        _compare("`/classify`", server, _send_singles(client), images=_SINGLE_IMAGES, batch_size=1)
    return 0


def _compare(
    name: str, server: ServerProcess, send: Callable[[], None], *, images: int, batch_size: int
) -> None:
    send()
    served, bare = [], []
    for _ in range(_ROUNDS):
        before_s = server.cpu_seconds()
        send()
        served.append((server.cpu_seconds() - before_s) / images)
        bare.append(_bare_loop(batch_size, images))
    a, b = statistics.median(served), statistics.median(bare)
    sys.stdout.write(f"| {name} | {1000 * a:.3f} | {1000 * b:.3f} | {a / b:.3f} |\n")
    sys.stdout.flush()


def _bare_loop(batch_size: int, images: int) -> float:
    command = [sys.executable, "-m", "benchmarks.bare_loop"]
    options = ["--batch-size", str(batch_size), "--images", str(images)]
    done = subprocess.run(command + options, check=True, capture_output=True, text=True)  # noqa: S603 - this interpreter
    return float(done.stdout)


def _send_batch(client: httpx.Client) -> Callable[[], None]:
    shape = (_BATCH_IMAGES, 32, 32, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    body = io.BytesIO()
    np.save(body, pixels)
    headers = {"content-type": "application/x-npy"}

    def send() -> None:
        client.post("/batch", content=body.getvalue(), headers=headers).raise_for_status()

    return send


def _send_singles(client: httpx.Client) -> Callable[[], None]:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    body = io.BytesIO()
    np.save(body, pixels)
    headers = {"content-type": "application/x-npy"}

    def send() -> None:
        for _ in range(_SINGLE_IMAGES):
            client.post("/classify", content=body.getvalue(), headers=headers).raise_for_status()

    return send


if __name__ == "__main__":
    sys.exit(main())
