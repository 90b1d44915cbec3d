"""CPU that the server takes for an image, over that of its stages in a bare loop.

`python -m benchmarks.overheads --images FILE` asks a server for full depth, through `/classify` by
32 clients and through `/batch`, each of which sends on as soon as it has its answer. Meanwhile the
server takes down every (stage, batch size) that its lanes run; then a process of its own runs the
same sequence again, on as many lanes and threads, and nothing else. Server and loop take turns;
what is printed are medians, and the cheapest loop that there is at any batch size and threads.

With the defaults it takes about two and a half minutes; nothing else should run meanwhile. Exit
status 1 if a bar is missed.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.overheads.cheapest_loop import BareLoop
from benchmarks.overheads.comparison import Summary, compare
from benchmarks.overheads.measured_server import (
    Demand,
    MeasuredServer,
    batch_request,
    measured,
    single_requests,
)
from benchmarks.serving.bodies import Form
from benchmarks.serving.images import LabelledImages
from model_store.reader import Bundle, open_bundle

_BUNDLE: Final = Path("model_store/bundles/cifar10-msdnet/1")
_NUM_CLIENTS: Final = 32
_NUM_BODIES: Final = 512  # different ones, sent over and over; a batch has no more
_BATCH_CLIENTS: Final = 2  # one batch is decoded while the other is computed
_BATCH_BAR: Final = 1.1


@dataclass(frozen=True, slots=True)
class Case:
    """One way to send images."""

    path: str
    form: Form
    bar: float | None  # of the ratio; None: printed beside


def main() -> int:
    """Run every case and print them as Markdown."""
    options = _parser().parse_args()
    bundle = open_bundle(options.bundle)
    pixels = _pixels(bundle, options.images)
    cases = [
        Case("/classify", Form.NPY, options.classify_bar),
        Case("/classify", Form.PNG, None),
        Case("/classify", Form.JPEG, None),
        Case("/batch", Form.NPY, _BATCH_BAR),
    ]
    _say(
        "| through | body | images/s | CPU ms an image | bare loop | beyond it, µs | ratio | bar |"
    )
    _say("|:--|:--|--:|--:|--:|--:|--:|--:|")
    is_missed, foreign = False, 0.0
    with TemporaryDirectory() as folder:
        calls = Path(folder) / "calls"
        module = ("benchmarks.overheads.recorded_server", str(calls))
        with measured(module, environment(bundle)) as server:
            for case in cases:
                images = pixels[: options.batch_images] if case.path == "/batch" else pixels
                demand = _demand(server, case, images, seconds=options.seconds)
                found = compare(
                    server, demand, calls=calls, bundle=options.bundle, rounds=options.rounds
                )
                _say(_row(case, found))
                is_missed |= case.bar is not None and found.ratio > case.bar
                foreign = max(foreign, found.foreign_share)
    cheapest = _cheapest(options.bundle)
    _say(
        f"\nCheapest bare loop: {1000 * cheapest.cpu_s:.3f} ms an image, batch "
        f"{cheapest.batch_size}, {cheapest.layout.lanes} × {cheapest.layout.threads} "
        f"(lanes × threads). Neighbours took up to {100 * foreign:.1f} % of the processors."
    )
    return 1 if is_missed else 0


def environment(bundle: Bundle) -> dict[str, str]:
    """Return the settings that make a server serve one bundle."""
    return {
        "ANYTIME_MODEL_STORE": str(bundle.path.resolve().parents[1]),
        "ANYTIME_DEFAULT_MODEL": f"{bundle.manifest.name}@{bundle.manifest.version}",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overheads", description=__doc__)
    parser.add_argument("--images", type=Path, help="of `read_images` (default: noise)")
    parser.add_argument("--bundle", type=Path, default=_BUNDLE)
    parser.add_argument("--classify-bar", type=float, default=1.4, help="1.1 at 224×224")
    parser.add_argument("--batch-images", type=int, default=_NUM_BODIES, help="of one batch")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one period")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def _pixels(bundle: Bundle, images: Path | None) -> NDArray[np.uint8]:
    """Return images of the bundle's size, ``(N, H, W, 3)``."""
    if images is not None:
        return LabelledImages.read(images).pixels[:_NUM_BODIES]
    shape = (_NUM_BODIES, bundle.manifest.input.height, bundle.manifest.input.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _demand(
    server: MeasuredServer, case: Case, pixels: NDArray[np.uint8], *, seconds: float
) -> Demand:
    endpoint = server.endpoint(case.path)
    if case.path == "/batch":
        return Demand([batch_request(endpoint, pixels)], _BATCH_CLIENTS, seconds)
    return Demand(single_requests(endpoint, pixels, case.form), _NUM_CLIENTS, seconds)


def _cheapest(bundle: Path) -> BareLoop:
    command = [sys.executable, "-m", "benchmarks.overheads.cheapest_loop", "--bundle", str(bundle)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - this interpreter
    return BareLoop.model_validate_json(done.stdout)


def _row(case: Case, found: Summary) -> str:
    bar = "" if case.bar is None else f"{case.bar:g}"
    return (
        f"| `{case.path}` | {case.form.value} | {found.images_per_s:.0f} "
        f"| {found.server_ms:.3f} | {found.bare_ms:.3f} | {found.beyond_us:.0f} "
        f"| {found.ratio:.3f} | {bar} |"
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
