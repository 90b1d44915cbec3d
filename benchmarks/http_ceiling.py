"""Requests a second that the service answers when its network costs nothing.

`python -m benchmarks.http_ceiling` runs `/classify` with a backend that computes nothing and a bare
Starlette route that reads the same body, alternately and under the same load, and prints the first
as a share of the second.
"""

import io
import statistics
import subprocess
import sys

import numpy as np

from benchmarks.server_process import ServerProcess, serving

_ROUNDS = 5
_SECONDS = 3.0
_CONNECTIONS = 16


def main() -> int:
    """Run the comparison and print it as Markdown."""
    with (
        serving(module=("benchmarks.fake_server", "service")) as service,
        serving(module=("benchmarks.fake_server", "bare")) as bare,
    ):
        shares, rates = [], []
        for _ in range(_ROUNDS):
            ours, theirs = _requests_per_s(service), _requests_per_s(bare)
            shares.append(ours / theirs)
            rates.append((ours, theirs))
        ours, theirs = (statistics.median(column) for column in zip(*rates, strict=True))
    sys.stdout.write("| `/classify`, free backend | bare Starlette | share |\n|--:|--:|--:|\n")
    sys.stdout.write(f"| {ours:.0f}/s | {theirs:.0f}/s | {statistics.median(shares):.2f} |\n")
    return 0


def _requests_per_s(server: ServerProcess) -> float:
    options = ["--connections", str(_CONNECTIONS), "--seconds", str(_SECONDS)]
    command = [sys.executable, "-m", "benchmarks.load", str(server.port), "/classify", *options]
    done = subprocess.run(command, input=_image(), check=True, capture_output=True)  # noqa: S603 - this interpreter
    return float(done.stdout)


def _image() -> bytes:
    body = io.BytesIO()
    np.save(body, np.zeros((32, 32, 3), dtype=np.uint8))
    return body.getvalue()


if __name__ == "__main__":
    sys.exit(main())
