"""CPU-seconds a request of the service when its network costs nothing, against the least there is.

`python -m benchmarks.http_ceiling` sends the same body to `/classify` with a backend that computes
nothing and to a bare Starlette route that reads it, alternately, and prints the second's CPU time a
request as a share of the first's. A third server, whose decoder looks at nothing either, tells what
decoding takes, and a fourth, whose engine answers at once, what the engine does: the bar is judged
without decoding, with the engine. CPU time is that of the whole process, lanes included,
so a busy machine spoils it less than a rate; ``max_exit=0`` leaves one stage of all that the lanes
hand on and gather even where there is nothing to compute. `wrk` sends where it is installed, else
`benchmarks.load`. Exit status 1 if a share without decoding is below 0.5.
"""

import argparse
import io
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import numpy as np
from PIL import Image

from benchmarks.server_process import ServerProcess, serving

_BAR: Final = 0.5
_TARGETS: Final = ("/classify", "/classify?deadline_ms=1000", "/classify?max_exit=0")
_KINDS: Final = ("bare", "service", "undecoded", "engineless")


@dataclass(frozen=True, slots=True)
class Load:
    """How each server is loaded."""

    rounds: int
    seconds: int
    connections: int


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU-seconds a request, medians over the rounds."""

    bare_s: float
    service_s: float
    undecoded_s: float
    engineless_s: float

    @property
    def decoding_s(self) -> float:
        """What bytes → pixels takes."""
        return self.service_s - self.undecoded_s

    @property
    def engine_s(self) -> float:
        """What engine and lanes take, with nothing to compute."""
        return self.undecoded_s - self.engineless_s

    @property
    def share(self) -> float:
        """The bare route's of ours without decoding."""
        return self.bare_s / self.undecoded_s


def main() -> int:
    """Run the comparison and print it as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    load = Load(**vars(parser.parse_args()))
    sys.stdout.write(f"{_sender()}, {load.connections} connections; CPU µs a request.\n\n")
    sys.stdout.write(
        "| request | bare route | ours | of that decoding | engine and lanes "
        "| share | without decoding | nor engine |\n|:--|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    shares = []
    with ExitStack() as stack:
        servers = {
            kind: stack.enter_context(serving(module=("benchmarks.fake_server", kind)))
            for kind in _KINDS
        }
        for form, body in _bodies().items():
            for target in _TARGETS:
                costs = _measure(servers, target, body, load)
                sys.stdout.write(f"| {form} `{target}` | {_cells(costs)} |\n")
                sys.stdout.flush()
                shares.append(costs.share)
    return 0 if min(shares) >= _BAR else 1


def _measure(servers: Mapping[str, ServerProcess], target: str, body: bytes, load: Load) -> Costs:
    for server in servers.values():
        httpx.post(f"{server.url}{target}", content=body).raise_for_status()
    measured: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for _ in range(load.rounds):
        for kind, server in servers.items():
            measured[kind].append(_cpu_s_a_request(server, target, body, load))
    return Costs(*(statistics.median(measured[kind]) for kind in _KINDS))


def _cells(costs: Costs) -> str:
    times = (costs.bare_s, costs.service_s, costs.decoding_s, costs.engine_s)
    shares = (costs.bare_s / costs.service_s, costs.share, costs.bare_s / costs.engineless_s)
    return " | ".join(
        [*(f"{1e6 * time_s:.1f}" for time_s in times), *(f"{share:.2f}" for share in shares)]
    )


def _cpu_s_a_request(server: ServerProcess, target: str, body: bytes, load: Load) -> float:
    before_s = server.cpu_seconds()
    requests = _send(server, target, body, load)
    return (server.cpu_seconds() - before_s) / requests


def _send(server: ServerProcess, target: str, body: bytes, load: Load) -> int:
    """Send for a while; return how many requests were answered.

    Raises:
        RuntimeError: Some were refused.
    """
    if shutil.which("wrk") is None:
        command = [sys.executable, "-m", "benchmarks.load", str(server.port), target]
        options = ["--connections", str(load.connections), "--seconds", str(load.seconds)]
        return round(float(_run([*command, *options], body)) * load.seconds)
    with tempfile.TemporaryDirectory() as folder:
        script = _wrk_script(Path(folder), body)
        said = _run(
            [
                *("wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s"),
                *("-s", str(script), f"{server.url}{target}"),
            ],
            b"",
        )
    if b"Non-2xx" in said:
        raise RuntimeError(f"requests were refused: {said.decode()}")
    found = re.search(rb"(\d+) requests in", said)
    if found is None:
        raise RuntimeError(f"wrk said something else: {said.decode()}")
    return int(found.group(1))


def _wrk_script(folder: Path, body: bytes) -> Path:
    (folder / "body").write_bytes(body)
    script = folder / "post.lua"
    script.write_text(
        'wrk.method = "POST"\n'
        f'local file = io.open("{folder / "body"}", "rb")\n'
        'wrk.body = file:read("*all")\n'
        "file:close()\n"
        'wrk.headers["Content-Type"] = "application/octet-stream"\n',
        encoding="ascii",
    )
    return script


def _run(command: Sequence[str], body: bytes) -> bytes:
    return subprocess.run(command, input=body, check=True, capture_output=True).stdout  # noqa: S603 - wrk, or this interpreter


def _sender() -> str:
    return "`wrk`" if shutil.which("wrk") else "`benchmarks.load`"


def _bodies() -> dict[str, bytes]:
    """Return one picture of 32 x 32 in either form; smooth, as photographs are."""
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
    png, npy = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG")
    np.save(npy, np.asarray(picture))
    return {"png": png.getvalue(), "npy": npy.getvalue()}


if __name__ == "__main__":
    sys.exit(main())
