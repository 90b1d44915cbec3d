"""How servers hold up under more and more load: ours, its peers, and what is possible at all.

`python -m benchmarks.serving --data DATA` runs everything, prints beforehand how long that will
take, and goes on where it was stopped. Nothing else should run meanwhile: what is measured among
neighbours is measured again. Exit status 1 if something that must be true is not.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.anytime import AnytimeProcess, AnytimeServer
from benchmarks.serving.bodies import Form
from benchmarks.serving.bound_lines import compute_bounds
from benchmarks.serving.fleet import Build, Fleet
from benchmarks.serving.grid import Grid
from benchmarks.serving.images import LabelledImages
from benchmarks.serving.journal import check_same_run
from benchmarks.serving.measure import Bench
from benchmarks.serving.noise import MAX_SEND_LAG_MS, MAX_SHARE
from benchmarks.serving.plan import CLIENTS, OTHER_DEADLINES_MS, Plan
from benchmarks.serving.report import write_report

PEERS: Final = ("litserve", "mosec")
_RHOS: Final = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
_QUICK_RHOS: Final = (0.5, 2.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, write the report and say which bars are kept."""
    options = _parser().parse_args(arguments)
    work: Path = options.work
    for folder in (work, work / "cells", work / "traces"):
        folder.mkdir(parents=True, exist_ok=True)
    images = LabelledImages.prepared(options.data, work)
    plan = _plan(options)
    check_same_run(work / "plan.json", plan)
    num_exits = len(images.exit_accuracies)
    sys.stdout.write(f"about {plan.estimated_s(num_exits) / 60:.0f} minutes without repetitions\n")
    if not options.report_only:
        _measure(plan, images, work)
        compute_bounds(work, front_end_us=options.front_end_us, stage_times=options.stage_times)
    return 0 if write_report(work, images, plan, results=options.results) else 1


def _measure(plan: Plan, images: LabelledImages, work: Path) -> None:
    fleet = Fleet(_builders(plan.servers, work))
    try:
        Grid(Bench(fleet, work, plan.form, images.labels), plan, images.exit_accuracies).run()
    finally:
        fleet.close()


def _builders(servers: Sequence[str], work: Path) -> Mapping[str, Build]:
    ours = AnytimeProcess(log=work / "anytime.log")
    return {
        name: (lambda k: AnytimeServer(ours, k)) if name == OURS else _peer(name)
        for name in servers
    }


def _peer(name: str) -> Build:
    # Imported where it is asked for: who measures ours alone needs no peer.
    build: Build = import_module(f"benchmarks.serving.peers.{name}").build
    return build


def _plan(options: argparse.Namespace) -> Plan:
    quick = options.quick
    return Plan(
        servers=tuple(dict.fromkeys((OURS, *options.servers))),
        rhos=tuple(options.rho or (_QUICK_RHOS if quick else _RHOS)),
        seconds=options.seconds or (3.0 if quick else 20.0),
        repeats=options.repeats or (1 if quick else 3),
        closed_seconds=1.5 if quick else 3.0,
        clients=(8, 32) if quick else CLIENTS,
        other_deadlines_ms=() if options.main_grid_only else OTHER_DEADLINES_MS,
        has_bursts=not options.main_grid_only,
        static_seconds=0.0 if options.main_grid_only else (3.0 if quick else 10.0),
        form=Form(options.form),
        max_foreign_share=options.max_foreign_share,
        max_send_lag_ms=options.max_send_lag_ms,
        max_attempts=options.attempts,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/serving"), help="kept between runs")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--servers", nargs="*", default=PEERS, help="beside ours")
    parser.add_argument("--rho", type=float, nargs="+", help="loads")
    parser.add_argument("--seconds", type=float, help="length of a trace")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true", help="to see whether it works, no figures")
    parser.add_argument("--main-grid-only", action="store_true", help="30 ms, Poisson, no statics")
    parser.add_argument("--form", choices=[form.value for form in Form], default=Form.NPY.value)
    parser.add_argument("--max-foreign-share", type=float, default=MAX_SHARE)
    parser.add_argument("--max-send-lag-ms", type=float, default=MAX_SEND_LAG_MS)
    parser.add_argument("--attempts", type=int, default=3, help="at a cell that is not quiet")
    parser.add_argument("--stage-times", type=Path, help="of `stage_times`, if measured already")
    parser.add_argument("--front-end-us", type=float, default=0.0, help="for the bound")
    parser.add_argument("--report-only", action="store_true", help="of what was measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
