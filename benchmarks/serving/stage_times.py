"""Measures the least time an image can take in each stage, at any batch size, lanes and threads.

`python -m benchmarks.serving.stage_times --out FILE [--bundle PATH]` runs every trunk and every
classifier on its own, over and over, as many lanes side by side as the cores have room for, and
keeps the best of some rounds: no schedule can do better. Takes about half a minute on two cores;
nothing else should run meanwhile.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from time import perf_counter
from typing import Final

import onnxruntime

from benchmarks.machine import processor
from benchmarks.serving.fastest_stages import Layout, Part, PartTime, StageTimes
from benchmarks.stage_graphs import Graph, open_stages
from model_store.reader import Bundle, open_bundle

_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
_ROUNDS: Final = 3
_WINDOW_S: Final = 0.05


def main() -> int:
    """Measure, write the file and print the fastest of each part as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("model_store/bundles/cifar10-msdnet/1"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    bundle, cores = open_bundle(options.bundle), len(os.sched_getaffinity(0))
    measured = [
        timed
        for layout in layouts(cores)
        for timed in measure(bundle, layout, cores=cores, batch_sizes=_BATCH_SIZES)
    ]
    times = StageTimes(
        model=f"{bundle.manifest.name}@{bundle.manifest.version}",
        processor=processor(),
        runtime=f"onnxruntime {onnxruntime.__version__}",
        cores=cores,
        measured=tuple(measured),
    )
    times.write(options.out)
    sys.stdout.write(table(times))
    return 0


def layouts(cores: int) -> list[Layout]:
    """Return all ways to give every core to a lane."""
    return [
        Layout(lanes=cores // threads, threads=threads)
        for threads in range(1, cores + 1)
        if cores % threads == 0
    ]


def measure(
    bundle: Bundle, layout: Layout, *, cores: int, batch_sizes: Sequence[int]
) -> Iterator[PartTime]:
    """Yield the best round of every part at every batch size, in one layout."""
    stages = open_stages(bundle, num_threads=layout.threads, num_rows=max(batch_sizes))
    with ThreadPoolExecutor(layout.lanes) as lanes:
        for batch_size in batch_sizes:
            for stage_index, stage in enumerate(stages):
                for part, graph in ((Part.TRUNK, stage.trunk), (Part.CLASSIFIER, stage.classifier)):
                    rounds = [
                        _runs_per_s(lanes, graph.first(batch_size), layout.lanes)
                        for _ in range(_ROUNDS)
                    ]
                    yield PartTime(
                        stage_index=stage_index,
                        part=part,
                        batch_size=batch_size,
                        layout=layout,
                        core_s=cores / (max(rounds) * batch_size),
                    )


def table(times: StageTimes) -> str:
    """Return the fastest way to run each part, as Markdown."""
    lines = [f"{times.model}, {times.processor}, {times.cores} cores, {times.runtime}", ""]
    lines += ["| stage | part | core-ms an image | batch | lanes × threads |"]
    lines += ["|--:|:--|--:|--:|--:|"]
    for stage_index in range(times.num_stages):
        for part in Part:
            best = times.fastest(stage_index, part)
            lines.append(
                f"| {stage_index} | {part.value} | {1000 * best.core_s:.4f} | {best.batch_size} "
                f"| {best.layout.lanes} × {best.layout.threads} |"
            )
    return "\n".join([*lines, ""])


def _runs_per_s(lanes: ThreadPoolExecutor, graph: Graph, num_lanes: int) -> float:
    """Return runs a second, all lanes together, while every lane runs the same graph."""
    barrier = Barrier(num_lanes)
    return sum(lanes.map(partial(_lane_runs_per_s, graph), [barrier] * num_lanes))


def _lane_runs_per_s(graph: Graph, barrier: Barrier) -> float:
    graph.run()  # caches, and memory of this size
    barrier.wait()
    began = now = perf_counter()
    runs = 0
    while now - began < _WINDOW_S:
        graph.run()
        runs += 1
        now = perf_counter()
    return runs / (now - began)


if __name__ == "__main__":
    sys.exit(main())
