"""The least CPU that any server of these stages could take: whole batches, straight to the end.

`python -m benchmarks.overheads.cheapest_loop [--bundle PATH]` tries batch sizes and threads, one
lane and as many as there are cores for, and prints the cheapest as JSON. Only the last classifier
runs.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.serving.fastest_stages import Layout, Record
from benchmarks.stage_graphs import Graph, open_stages
from model_store.reader import Bundle, open_bundle

_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
_WINDOW_S: Final = 0.5


class BareLoop(Record):
    """One way to run the stages."""

    layout: Layout
    batch_size: int
    cpu_s: float  # an image


def main() -> int:
    """Print the cheapest loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    bundle, cores = open_bundle(parser.parse_args().bundle), len(os.sched_getaffinity(0))
    loops = [loop for layout in layouts(cores) for loop in measure(bundle, layout)]
    cheapest = min(loops, key=lambda loop: loop.cpu_s)
    sys.stdout.write(cheapest.model_dump_json() + "\n")
    return 0


def layouts(cores: int) -> list[Layout]:
    """Return one lane of every number of threads, and as many such lanes as fit."""
    return [
        Layout(lanes=lanes, threads=threads)
        for threads in range(1, cores + 1)
        for lanes in sorted({1, cores // threads})
    ]


def measure(bundle: Bundle, layout: Layout) -> list[BareLoop]:
    """Return every batch size in one layout."""
    stages = open_stages(bundle, num_threads=layout.threads, num_rows=max(_BATCH_SIZES))
    whole = [*(stage.trunk for stage in stages), stages[-1].classifier]
    with ThreadPoolExecutor(layout.lanes) as lanes:
        return [
            BareLoop(
                layout=layout,
                batch_size=size,
                cpu_s=_cpu_s(lanes, [graph.first(size) for graph in whole], layout.lanes) / size,
            )
            for size in _BATCH_SIZES
        ]


def _cpu_s(lanes: ThreadPoolExecutor, batch: Sequence[Graph], num_lanes: int) -> float:
    """Return CPU-seconds of one batch, while every lane runs such batches."""
    for graph in batch:
        graph.run()  # caches, and memory of this size
    before_s = time.process_time()
    until = time.monotonic() + _WINDOW_S
    num_batches = sum(lanes.map(partial(_run_until, batch), [until] * num_lanes))
    return (time.process_time() - before_s) / num_batches


def _run_until(batch: Sequence[Graph], until: float) -> int:
    num_batches = 0
    while not num_batches or time.monotonic() < until:
        for graph in batch:
            graph.run()
        num_batches += 1
    return num_batches


if __name__ == "__main__":
    sys.exit(main())
