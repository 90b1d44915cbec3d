"""The report of a run: tables in Markdown, pictures, and which of the bars are kept."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from benchmarks.machine import described, processor, slug
from benchmarks.markdown import milliseconds, percent, table
from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.bars import Bar, check_bars, ideal_full_depth
from benchmarks.serving.images import LabelledImages
from benchmarks.serving.judge import WIRE_MS
from benchmarks.serving.plan import DEADLINE_MS, Plan
from benchmarks.serving.plots import write_plots
from benchmarks.serving.results import Measured, Place, Results
from benchmarks.serving.summary import paired_difference
from benchmarks.serving.trace import BURST_RATIO, BURST_S, BURST_SHARE, ArrivalProcess

_MEBIBYTE: Final = 2**20


def write_report(work: Path, images: LabelledImages, plan: Plan, *, results: Path) -> bool:
    """Write and print the report.

    Args:
        work: Folder of the run.
        images: That were sent.
        plan: What was measured.
        results: Folder that the report is written to.

    Returns:
        Whether no bar that could be judged is missed.
    """
    measured = Results(work, plan, images.exit_accuracies)
    stem = f"{slug(processor())}-serving"
    results.mkdir(parents=True, exist_ok=True)
    pictures = write_plots(measured, results, stem=stem)
    bars = check_bars(measured)
    sections = [section(measured) for section in _SECTIONS]
    shown = "\n".join(f"![{p.stem.removeprefix(stem + '-')}]({p.name})" for p in pictures)
    text = "\n".join(
        ["# Serving under load\n", described(), shown, "", _bars(bars), *filter(None, sections)]
    )
    path = results / f"{stem}.md"
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{text}\nwritten to {path}\n")
    return all(bar.is_kept is not False for bar in bars)


def _bars(bars: Iterable[Bar]) -> str:
    words = {True: "kept", False: "**missed**", None: "–"}
    rows = [[bar.claim, words[bar.is_kept], bar.found] for bar in bars]
    return "## What must be true\n\n" + table(["claim", "", "found"], rows, num_words=3)


def _yardstick(results: Results) -> str:
    rates = results.yardstick
    lines = [
        "## Yardstick\n",
        f"Requests are uint8 arrays of 32×32×3 ({results.plan.form.value}), real CIFAR-10 test "
        "images, sent by an open loop from a process of its own. Servers run under `nice -n 5`.",
        f"ρ = 1 is {rates.reference_hz:.0f} requests/s: the best closed-loop throughput at full "
        f"depth, {rates.reference_server}'s. λ₀, ours at exit 0, is {rates.lambda_0:.0f}/s. "
        f"The full network is right on {percent(results.accuracies[-1])} % of the test images.",
        f"In time: a 200 whose last byte came at most {WIRE_MS:g} ms after scheduled send + "
        "deadline, by the generator's clock, over all arrivals.\n",
    ]
    rows = [
        [
            c.server,
            "all" if c.exit_index is None else f"{c.exit_index}",
            f"{c.num_clients}",
            f"{c.images_per_s:.0f}",
            percent(c.foreign_share, 1),
        ]
        for c in results.capacities
    ]
    header = ["server", "exit", "clients", "images/s", "foreign CPU, %"]
    return "\n".join(lines) + "\n" + table(header, rows, num_words=2)


def _main_grid(results: Results) -> str:
    rows = []
    for rho in results.rhos:
        ideal = ideal_full_depth(rho, results.accuracies[-1])
        for server in results.servers:
            measured = results.at(Place(server, None, rho))
            if measured is not None:
                rows.append([f"{rho:g}", server, *_figures(measured), percent(ideal)])
    title = f"## {DEADLINE_MS:g} ms, Poisson\n\n"
    return title + table([*_HEADER, "ideal full depth, %"], rows, num_words=2)


_HEADER: Final = (
    *("ρ", "server", "arrivals", "in time, %", "right and in time, %", "of runs"),
    *("goodput/s", "refused, %", "p50", "p99", "p99.9", "p99 to refusal", "late p99.9", "late max"),
    *("own word, %", "RSS, MiB"),
)


def _figures(measured: Measured) -> list[str]:
    s = measured.summary
    mark = "" if measured.is_quiet else " (noisy)"
    held = max(r.resident_bytes for r in measured.records) / _MEBIBYTE
    return [
        f"{s.num_arrivals}",
        percent(s.attainment, 3) + mark,
        percent(s.accuracy),
        f"{percent(min(s.accuracy_by_run))}…{percent(max(s.accuracy_by_run))}",
        f"{s.goodput_hz:.0f}",
        percent(s.refused),
        *(milliseconds(v) for v in (s.latency_ms.p50, s.latency_ms.p99, s.latency_ms.p999)),
        *(milliseconds(v) for v in (s.refusal_ms.p99, s.lateness_ms.p999, s.lateness_ms.most)),
        percent(s.own_attainment, 3),
        f"{held:.0f}",
    ]


def _own(results: Results) -> str:
    rows = []
    for deadline_ms in results.plan.other_deadlines_ms:
        for rho in results.rhos:
            measured = results.at(Place(OURS, None, rho, deadline_ms))
            if measured is not None:
                rows.append([f"{rho:g}", f"{deadline_ms:g} ms", *_figures(measured)])
    for rho in results.rhos:
        measured = results.at(Place(OURS, None, rho, process=ArrivalProcess.BURSTY))
        if measured is not None:
            rows.append([f"{rho:g}", "bursts", *_figures(measured)])
    if not rows:
        return ""
    note = (
        f"\nBursts: {BURST_RATIO:g} × the mean rate for {100 * BURST_SHARE:.0f} % of the time, "
        f"{1000 * BURST_S:.0f} ms each on average; the mean rate is the same.\n"
    )
    header = ["ρ", "load", *_HEADER[2:]]
    return f"## {OURS} alone\n\n" + table(header, rows, num_words=2) + note


def _exits(results: Results) -> str:
    header = ["ρ", *(f"exit {k}, %" for k in range(results.num_exits))]
    header += ["queue p50", "queue p99", "compute p50", "compute p99"]
    rows = []
    for rho in results.rhos:
        measured = results.at(Place(OURS, None, rho))
        if measured is not None and measured.summary.exit_shares:
            s = measured.summary
            times = (s.queue_ms.p50, s.queue_ms.p99, s.compute_ms.p50, s.compute_ms.p99)
            shares = [percent(share, 1) for share in s.exit_shares]
            rows.append([f"{rho:g}", *shares, *map(milliseconds, times)])
    title = f"## Where {OURS} answers, and where the time goes (ms)\n\n"
    return title + table(header, rows)


def _statics(results: Results) -> str:
    if not results.plan.has_statics:
        return ""
    rows = []
    for rho in results.rhos:
        for server in results.servers:
            rows += _static_rows(results, server, rho)
    note = (
        "Served as static models were only the exits that could be best: those whose accuracy × "
        "min(1, closed-loop capacity ÷ load) exceeds the best that was measured, three at most.\n"
    )
    header = ["ρ", "server", "best exit", "of", "right and in time, %"]
    header += [f"{OURS} more, points", "standard error"]
    return f"## Best static exit, first trace\n\n{note}\n" + table(header, rows, num_words=2)


def _static_rows(results: Results, server: str, rho: float) -> list[list[str]]:
    best, ours = results.best_static(server, rho), results.at(Place(OURS, None, rho))
    if best is None or ours is None:
        return []
    k, static = best
    ran = [str(e) for e in range(results.num_exits) if results.static(server, e, rho) is not None]
    difference, error = paired_difference([ours.first], [static.first])
    accuracy = percent(float(static.first.is_useful.mean()))
    paired = [f"{100 * difference:+.2f}", f"{100 * error:.2f}"]
    return [[f"{rho:g}", server, str(k), ", ".join(ran), accuracy, *paired]]


def _bounds(results: Results) -> str:
    if not results.bounds:
        return ""
    rows = [
        [
            b.trace,
            f"{b.deadline_ms:g} ms",
            *map(percent, (b.exit_0_for_all, b.replayed, b.bound, b.label_oracle)),
        ]
        for b in results.bounds
    ]
    header = ["trace", "deadline", "exit 0 for all", "replayed", "bound", "label oracle"]
    return "## Clairvoyant bound, %\n\n" + table(header, rows, num_words=2)


def _noise(results: Results) -> str:
    rows = []
    for server in results.servers:
        tried = [r for r in results.records if r.cell.server == server]
        discarded = [r for r in tried if not results.is_quiet(r)]
        most = max(tried, key=lambda r: r.foreign_share)
        rows.append(
            [
                server,
                f"{len(tried)}",
                f"{len(discarded)}",
                percent(most.foreign_share, 1),
                milliseconds(max(r.send_lag_p99_ms for r in tried)),
                f"{sum(r.generator_us for r in tried) / len(tried):.0f}",
            ]
        )
    limits = results.plan
    scheduling = ", ".join(sorted({record.scheduling for record in results.records}))
    note = (
        f"A run is discarded and repeated, {limits.max_attempts} attempts at most, where steal and "
        f"other processes take more than {percent(limits.max_foreign_share, 1)} % of the machine "
        f"or the generator's p99 send lag exceeds {limits.max_send_lag_ms:g} ms. Where none of a "
        "cell's attempts survives, all of them count and are marked noisy. The generator's "
        f"niceness is 0, its scheduling: {scheduling}.\n"
    )
    header = ["server", "runs", "discarded", "most foreign CPU, %", "worst p99 send lag, ms"]
    header += ["generator, µs CPU a request"]
    return f"## Noise\n\n{note}\n" + table(header, rows)


def _settings(results: Results) -> str:
    said = {c.server: c.settings for c in results.capacities}
    rows = [
        [name, ", ".join(f"{k} {v}" for k, v in settings.items()) or "defaults"]
        for name, settings in said.items()
    ]
    return "## Settings\n\n" + table(["server", "settings"], rows, num_words=2)


_SECTIONS: Final[tuple[Callable[[Results], str], ...]] = (
    _yardstick,
    _main_grid,
    _statics,
    _own,
    _exits,
    _bounds,
    _noise,
    _settings,
)
