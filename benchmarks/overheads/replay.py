"""Runs again what a server's lanes ran, and nothing else: the stages in a bare loop.

`python -m benchmarks.overheads.replay FILE --from T --until T [--bundle PATH]` prints CPU-seconds.
Every lane is a thread that runs its own calls one after another, as large as they were and on as
many threads of the runtime, on noise that lies ready: nothing is decoded, joined, queued or told.
It is a process of its own, so that its threads and caches are not the server's.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.overheads.call_log import Calls, calls_between
from benchmarks.stage_graphs import Graph, StageGraphs, open_stages
from model_store.reader import open_bundle

_WARM_UP_SHARE: Final = 0.1  # of each lane's calls, first and unmeasured

Lane = Sequence[Graph]
"""Graphs in the order in which a lane runs them."""


def main() -> int:
    """Replay a period; print its CPU-seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", type=Path)
    parser.add_argument("--from", dest="began_at", type=float, required=True)
    parser.add_argument("--until", dest="ended_at", type=float, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    options = parser.parse_args()
    calls = calls_between(options.calls, options.began_at, options.ended_at)
    if not len(calls):
        raise SystemExit("no stage ran in that period")
    stages = open_stages(
        open_bundle(options.bundle),
        num_threads=int(calls["threads"][0]),
        num_rows=int(calls["rows"].max()),
    )
    sys.stdout.write(f"{cpu_seconds(plan(calls, stages)):.6f}\n")
    return 0


def plan(calls: Calls, stages: Sequence[StageGraphs]) -> list[Lane]:
    """Return what each lane runs."""
    return [_lane(calls[calls["lane"] == lane], stages) for lane in np.unique(calls["lane"])]


def cpu_seconds(lanes: Sequence[Lane]) -> float:
    """Run all lanes side by side and return what they take together, after a warm-up."""
    warm_ups = [lane[: max(1, round(_WARM_UP_SHARE * len(lane)))] for lane in lanes]
    with ThreadPoolExecutor(len(lanes)) as threads:
        list(threads.map(_run, warm_ups))
        before_s = time.process_time()
        list(threads.map(_run, lanes))
        return time.process_time() - before_s


def _lane(calls: Calls, stages: Sequence[StageGraphs]) -> Lane:
    graphs = []
    for call in calls:
        stage = stages[int(call["stage"])]
        graphs.append(stage.trunk.first(int(call["rows"])))
        if call["classified"]:
            graphs.append(stage.classifier.first(int(call["classified"])))
    return graphs


def _run(lane: Lane) -> None:
    for graph in lane:
        graph.run()


if __name__ == "__main__":
    sys.exit(main())
