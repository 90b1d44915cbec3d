"""Load at 224×224: stages of ImageNet's size run for their time, the answers are replayed.

`python -m benchmarks.serving.large --data DATA`; ρ = 0.5, 1 and 2 at 200 ms, from wherever it was
stopped. A request brings an array of 224×224×3 that holds a number; the network's stages run on it,
and what they say is what the default bundle says of CIFAR-10's test image of that number. "Replayed
accuracy" is therefore that of a network that was never trained. Exit status 1 if a bar is missed.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.machine import described, processor, slug
from benchmarks.markdown import milliseconds, percent, table
from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.anytime import AnytimeProcess, AnytimeServer
from benchmarks.serving.bodies import Form
from benchmarks.serving.cell import CapacityRecord, Cell, CellRecord
from benchmarks.serving.fleet import Fleet
from benchmarks.serving.images import IMAGES_FILE, LabelledImages
from benchmarks.serving.journal import Journal
from benchmarks.serving.judge import Outcomes
from benchmarks.serving.large_model import REPLAYED_EXITS
from benchmarks.serving.measure import Bench, measure_capacity, measure_cell
from benchmarks.serving.noise import MAX_SEND_LAG_MS, MAX_SHARE
from benchmarks.serving.summary import Summary, summarise
from benchmarks.serving.trace import ArrivalProcess

DEADLINE_MS: Final = 200.0
RHOS: Final = (0.5, 1.0, 2.0)
HEAVY_RHO: Final = 2.0
HEAVY_ACCURACY: Final = 0.95  # of the full network's
_CLIENTS: Final = (4, 8, 16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the report and say whether the bar is kept."""
    options = _parser().parse_args(arguments)
    work: Path = options.work
    for folder in (work, work / "cells", work / "traces"):
        folder.mkdir(parents=True, exist_ok=True)
    images = _replayed(LabelledImages.prepared(options.data, work.parent), work / IMAGES_FILE)
    bundles = work / "bundles"
    if not bundles.is_dir():
        _python("benchmarks.serving.large_model", "--work", str(bundles))
    process = AnytimeProcess(
        ("benchmarks.serving.replayed_server", str(work / IMAGES_FILE)),
        {"ANYTIME_MODEL_STORE": str(bundles)},
        log=work / "anytime.log",
    )
    fleet = Fleet({OURS: lambda k: AnytimeServer(process, k)})
    try:
        bench = Bench(fleet, work, Form.NUMBERED, images.labels)
        capacities = _capacities(bench, options.seconds / 4)
        records = _cells(bench, capacities, options)
    finally:
        fleet.close()
    return _report(work, images, capacities, records, results=options.results)


def _replayed(images: LabelledImages, path: Path) -> LabelledImages:
    """Return the images with the exits that are replayed, and store them for the server."""
    chosen = replace(images, logits=images.logits[:, list(REPLAYED_EXITS)])
    if not path.is_file():
        chosen.write(path)
    return chosen


def _capacities(bench: Bench, seconds: float) -> list[CapacityRecord]:
    journal = Journal(bench.work / "capacities.jsonl", CapacityRecord)
    for num_clients in _CLIENTS:
        if num_clients not in {record.num_clients for record in journal.read()}:
            record = measure_capacity(bench, OURS, None, num_clients=num_clients, seconds=seconds)
            journal.append(record)
    return journal.read()


def _cells(
    bench: Bench, capacities: Sequence[CapacityRecord], options: argparse.Namespace
) -> list[CellRecord]:
    journal = Journal(bench.work / "cells.jsonl", CellRecord)
    reference_hz = max(record.images_per_s for record in capacities)
    for rho in RHOS:
        cell = Cell(
            server=OURS,
            exit_index=None,
            process=ArrivalProcess.POISSON,
            deadline_ms=DEADLINE_MS,
            rho=rho,
            rate_hz=round(rho * reference_hz, 3),
            seconds=options.seconds,
            run_seconds=options.seconds,
            repeat=0,
        )
        tried = sum(record.cell == cell for record in journal.read())
        for attempt in range(tried, options.attempts):
            if any(r.cell == cell and _is_quiet(r) for r in journal.read()):
                break
            journal.append(measure_cell(bench, cell, attempt=attempt))
    return journal.read()


def _is_quiet(record: CellRecord) -> bool:
    return record.is_quiet(MAX_SHARE, MAX_SEND_LAG_MS)


def _report(
    work: Path,
    images: LabelledImages,
    capacities: Sequence[CapacityRecord],
    records: Sequence[CellRecord],
    *,
    results: Path,
) -> int:
    full = images.exit_accuracies[-1]
    best = max(capacities, key=lambda r: r.images_per_s)
    rows, accuracies = [], {}
    for rho in RHOS:
        tried = [record for record in records if record.cell.rho == rho]
        quiet = [record for record in tried if _is_quiet(record)]
        runs = [Outcomes.read(work / "cells" / r.file) for r in quiet[:1] or tried]
        found = summarise(runs, num_exits=len(REPLAYED_EXITS))
        accuracies[rho] = found.accuracy
        mark = "" if quiet else f" (noisy, all {len(tried)} attempts)"
        rows.append([f"{rho:g}{mark}", *_figures(found, full)])
    is_kept = accuracies[HEAVY_RHO] >= HEAVY_ACCURACY * full
    text = (
        f"# Serving 224×224 under load, replayed accuracy\n\n{described()}\n"
        f"The 20-layer ImageNet preset with untrained weights and ten classes, {DEADLINE_MS:g} ms. "
        "Its stages run for their time; what they say of image i at exit k is what the default "
        f"bundle says of CIFAR-10's test image i, exits {', '.join(map(str, REPLAYED_EXITS))} in "
        f"order. ρ = 1 is {best.images_per_s:.1f} images/s, full depth, {best.num_clients} "
        f"clients; the full network is right on {percent(full)} %.\n\n{table(_HEADER, rows)}\n"
        f"ρ = {HEAVY_RHO:g}: at least {HEAVY_ACCURACY:g} of the full network's accuracy: "
        f"{'kept' if is_kept else '**missed**'}.\n"
    )
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{slug(processor())}-serving-large.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if is_kept else 1


_HEADER: Final = (
    *("ρ", "arrivals", "in time, %", "replayed accuracy, %", "÷ full network's", "refused, %"),
    *("p50, ms", "p99, ms", "late max, ms"),
    *(f"exit {k}, %" for k in range(len(REPLAYED_EXITS))),
)


def _figures(found: Summary, full_accuracy: float) -> list[str]:
    times = (found.latency_ms.p50, found.latency_ms.p99, found.lateness_ms.most)
    return [
        f"{found.num_arrivals}",
        percent(found.attainment),
        percent(found.accuracy),
        f"{found.accuracy / full_accuracy:.3f}",
        percent(found.refused),
        *map(milliseconds, times),
        *(percent(share, 1) for share in found.exit_shares),
    ]


def _python(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)  # noqa: S603 - this interpreter


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.large", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/serving/large"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seconds", type=float, default=40.0, help="length of a trace")
    parser.add_argument("--attempts", type=int, default=3, help="at a load that is not quiet")
    return parser


if __name__ == "__main__":
    sys.exit(main())
