"""What a server that knows all arrivals in advance could achieve on the same traces, at most.

`python -m benchmarks.serving.bound --traces FILE … --deadline-ms 30 --images FILE --stage-times
FILE --front-end-us 75 --out bound.json` maximises Σ f(w_i) over all that n lanes can do between
arrivals and deadlines (`clairvoyant`), f being worth of work (`value_function`) at the fastest time
of every part of the network (`stage_times`). No block, no overlap: the optimum is exact. Seconds.

Four lines, each an accuracy under deadline over all arrivals:

- ``bound``: rules that stop by the bin of the latest confidence, bins leading to bins by chance;
- ``replayed``: the same, by what becomes of the test images themselves, which is nearer the truth;
- ``label_oracle``: knows before it begins which exits will be right;
- ``exit_0_for_all``: exit 0 and no other, for as many as can be served.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from benchmarks.offline import confidences_by_exit
from benchmarks.serving.clairvoyant import fair_work_s
from benchmarks.serving.fastest_stages import Record, StageTimes
from benchmarks.serving.images import LabelledImages
from benchmarks.serving.rule_search import by_bins, by_images
from benchmarks.serving.stopping_rules import ConfidenceBins, ImageTimes
from benchmarks.serving.trace import Trace
from benchmarks.serving.value_function import (
    ValueFunction,
    at_one_exit,
    by_confidence,
    by_label,
)
from model_store.reader import open_bundle

_BUNDLE: Final = Path("model_store/bundles/cifar10-msdnet/1")
GRACE_S: Final = 0.001  # an answer counts as in time until then; the bound may use it, too
NUM_BINS: Final = 50


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Worth of an amount of work to servers that know more or less."""

    bound: ValueFunction
    replayed: ValueFunction
    label_oracle: ValueFunction
    exit_0_for_all: ValueFunction

    @classmethod
    def build(
        cls,
        confidences: NDArray[np.float64],
        is_right: NDArray[np.bool_],
        times: ImageTimes,
        *,
        num_bins: int = NUM_BINS,
    ) -> "Curves":
        """Compute all of them from what the exits say of the test images.

        Args:
            confidences: Calibrated, shape ``(N, K)``.
            is_right: Whether the answer is the label, shape ``(N, K)``.
            times: Of one image.
            num_bins: Of confidence, at each exit.
        """
        table = ConfidenceBins.build(confidences, is_right, num_bins=num_bins)
        replayed = by_confidence(table, times, by_images)
        return cls(
            # Whatever is achieved on the images is no less possible for being better than expected.
            bound=by_confidence(table, times, by_bins).joined(replayed),
            replayed=replayed,
            label_oracle=by_label(is_right, times),
            exit_0_for_all=at_one_exit(is_right, times, 0),
        )


class TraceBound(Record):
    """What is possible on one trace; accuracies under deadline, over all arrivals."""

    trace: str
    deadline_ms: float
    arrivals: int
    mean_work_ms: float  # lane-milliseconds an arrival can have; more than full depth is left idle
    bound: float
    replayed: float
    label_oracle: float
    exit_0_for_all: float


def bound_on(
    trace: Trace, curves: Curves, *, name: str, deadline_s: float, num_lanes: int
) -> TraceBound:
    """Return what is possible on one trace.

    Args:
        trace: Its arrivals.
        curves: Worth of an amount of work.
        name: Of the trace.
        deadline_s: Of every request, from its arrival.
        num_lanes: n, as many as the machine has cores.
    """
    arrived_s = trace.scheduled_s
    work_s = fair_work_s(arrived_s, arrived_s + deadline_s + GRACE_S, num_lanes=num_lanes)
    return TraceBound(
        trace=name,
        deadline_ms=1000 * deadline_s,
        arrivals=len(trace),
        mean_work_ms=1000 * float(work_s.mean()),
        bound=float(curves.bound(work_s).mean()),
        replayed=float(curves.replayed(work_s).mean()),
        label_oracle=float(curves.label_oracle(work_s).mean()),
        exit_0_for_all=float(curves.exit_0_for_all(work_s).mean()),
    )


def main() -> int:
    """Write the bounds and print them as Markdown."""
    options = _parser().parse_args()
    stages = StageTimes.read(options.stage_times)
    times = stages.image_times(arrival_s=options.front_end_us / 1e6)
    curves = _curves(options.images, options.bundle, times, exits=options.exits, bins=options.bins)
    bounds = [
        bound_on(
            Trace.read(path),
            curves,
            name=path.stem,
            deadline_s=deadline_ms / 1000,
            num_lanes=stages.cores,
        )
        for path in options.traces
        for deadline_ms in options.deadline_ms
    ]
    options.out.write_bytes(TypeAdapter(list[TraceBound]).dump_json(bounds, indent=1) + b"\n")
    sys.stdout.write(_table(bounds))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, nargs="+", required=True)
    parser.add_argument("--deadline-ms", type=float, nargs="+", default=[30.0])
    parser.add_argument("--images", type=Path, required=True, help="of `read_images`")
    parser.add_argument("--stage-times", type=Path, required=True, help="of `stage_times`")
    parser.add_argument(
        "--front-end-us", type=float, required=True, help="its CPU for each image, from `overheads`"
    )
    parser.add_argument("--bundle", type=Path, default=_BUNDLE, help="whose logits the images hold")
    parser.add_argument(
        "--exits", type=int, nargs="+", help="of the images' logits, one for each stage timed"
    )
    parser.add_argument("--bins", type=int, default=NUM_BINS)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def _curves(
    images: Path, bundle: Path, times: ImageTimes, *, exits: Sequence[int] | None, bins: int
) -> Curves:
    labelled = LabelledImages.read(images)
    chosen = list(range(labelled.logits.shape[1]) if exits is None else exits)
    if len(chosen) != times.num_exits:
        raise SystemExit(f"{len(chosen)} exits of the images for {times.num_exits} stages timed")
    confidences = confidences_by_exit(open_bundle(bundle), labelled.logits)
    return Curves.build(confidences[:, chosen], labelled.is_right[:, chosen], times, num_bins=bins)


def _table(bounds: Sequence[TraceBound]) -> str:
    lines = [
        "| trace | deadline | arrivals | exit 0 for all | replayed | bound | label oracle |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {b.trace} | {b.deadline_ms:g} ms | {b.arrivals} | {100 * b.exit_0_for_all:.2f} % "
        f"| {100 * b.replayed:.2f} % | {100 * b.bound:.2f} % | {100 * b.label_oracle:.2f} % |"
        for b in bounds
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
