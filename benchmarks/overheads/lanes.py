"""Where the stages run: lanes beside the event loop, or the event loop itself.

`python -m benchmarks.overheads.lanes --images FILE` asks the server and three minimal ones
(`minimal_server`: no admission, no deadlines, no exits) for full depth by 32 closed-loop clients
and prints throughput and CPU an image. The minimal ones differ from each other in the place of the
work alone; the server differs from them in everything that it is for. About a minute.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.overheads.__main__ import environment
from benchmarks.overheads.measured_server import Demand, measured, single_requests
from benchmarks.serving.bodies import Form
from benchmarks.serving.images import LabelledImages
from model_store.reader import open_bundle

_BUNDLE: Final = Path("model_store/bundles/cifar10-msdnet/1")
_NUM_CLIENTS: Final = 32
_NUM_BODIES: Final = 512


@dataclass(frozen=True, slots=True)
class Variant:
    """One place for the work."""

    name: str
    module: Sequence[str]


def main() -> int:
    """Measure every variant and print them as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="of `read_images`")
    parser.add_argument("--bundle", type=Path, default=_BUNDLE)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    pixels = LabelledImages.read(options.images).pixels[:_NUM_BODIES]
    sys.stdout.write("| engine | images/s | CPU ms an image |\n|:--|--:|--:|\n")
    for variant in variants(options.bundle, cores=len(os.sched_getaffinity(0))):
        with measured(variant.module, environment(bundle)) as server:
            requests = single_requests(server.endpoint("/classify"), pixels, Form.NPY)
            demand = Demand(requests, _NUM_CLIENTS, options.seconds)
            periods = [server.under(demand) for _ in range(options.rounds)]
        rate = median(period.answers_per_s for period in periods)
        cpu_ms = median(1000 * period.server_cpu_s / period.answers for period in periods)
        sys.stdout.write(f"| {variant.name} | {rate:.0f} | {cpu_ms:.3f} |\n")
        sys.stdout.flush()
    return 0


def variants(bundle: Path, *, cores: int) -> list[Variant]:
    """Return the server and the minimal ones, for so many cores."""
    minimal = ("benchmarks.overheads.minimal_server",)
    of = ("--bundle", str(bundle))
    return [
        Variant("the server, its own lanes", ("service",)),
        Variant(f"minimal, {cores} lanes × 1 thread", (*minimal, "lanes", *of)),
        Variant("minimal, on the event loop, 1 thread", (*minimal, "inline", *of)),
        Variant(
            f"minimal, on the event loop, {cores} threads",
            (*minimal, "inline", "--threads", str(cores), *of),
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
