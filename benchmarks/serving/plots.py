"""The results as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.bars import ideal_full_depth
from benchmarks.serving.plan import DEADLINE_MS
from benchmarks.serving.results import Place, Results

_SIZE: Final = (8.0, 5.0)  # inches
_DPI: Final = 130
_COLOURS: Final = ("#c1272d", "#0b6e99", "#e08e0b", "#5b8c5a", "#7a5195")  # ours first
_MARKERS: Final = ("o", "s", "^", "D", "v")
_BELOW_EXIT_0: Final = 6.0  # points that the enlarged picture shows below exit 0 for all
_TOP_OF_ENLARGED: Final = 97.0  # per cent
_GREY: Final = "#666666"
_STYLE: Final[dict[str, Any]] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def write_plots(results: Results, folder: Path, *, stem: str) -> list[Path]:
    """Write every picture; return their files."""
    with mpl.rc_context(cast("Any", _STYLE)):  # its own type names every parameter there is
        figures = {
            "accuracy": _accuracy(results),
            "attainment": _attainment(results),
            "exits": _exits(results),
        }
        paths = []
        for name, figure in figures.items():
            path = folder / f"{stem}-{name}.png"
            figure.savefig(path, dpi=_DPI, bbox_inches="tight")
            paths.append(path)
    return paths


def _accuracy(results: Results) -> Figure:
    """Draw the whole range, and above it the few points within which the exits differ."""
    figure = Figure(figsize=(_SIZE[0], 1.5 * _SIZE[1]))
    near, whole = figure.subplots(2, sharex=True, gridspec_kw={"hspace": 0.08})
    full = results.accuracies[-1]
    fine = np.linspace(min(results.rhos), max(results.rhos), 200)
    ideal = [100 * ideal_full_depth(r, full) for r in fine]
    for axes in (near, whole):
        axes.plot(fine, ideal, "--", color=_GREY, linewidth=1.2, label="ideal full-depth server")
        _bound_lines(axes, results)
        for i, server in enumerate(results.servers):
            _line(axes, results, server, index=i, what="accuracy")
            _static_line(axes, results, server, i)
    near.set_title(f"Accuracy under a deadline of {DEADLINE_MS:g} ms", loc="left", weight="bold")
    whole.set_ylabel("right and in time, % of all arrivals")
    near.set_ylabel("the same, enlarged")
    _finish(whole, results)
    whole.get_legend().remove()
    near.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    near.set_ylim(100 * results.accuracies[0] - _BELOW_EXIT_0, _TOP_OF_ENLARGED)
    return figure


def _attainment(results: Results) -> Figure:
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    for i, server in enumerate(results.servers):
        _line(axes, results, server, index=i, what="attainment")
    for j, deadline_ms in enumerate(results.plan.other_deadlines_ms):
        rhos = [r for r in results.rhos if results.at(Place(OURS, None, r, deadline_ms))]
        found = [results.at(Place(OURS, None, r, deadline_ms)) for r in rhos]
        shares = [100 * m.summary.attainment for m in found if m is not None]
        style = (":", "-.")[j % 2]
        axes.plot(rhos, shares, style, color=_COLOURS[0], label=f"{OURS}, {deadline_ms:g} ms")
    axes.set_ylabel("answered in time, % of all arrivals")
    axes.set_title(f"In time ({DEADLINE_MS:g} ms unless said otherwise)", loc="left", weight="bold")
    _finish(axes, results)
    return figure


def _exits(results: Results) -> Figure:
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    rhos = [r for r in results.rhos if results.at(Place(OURS, None, r))]
    measured = [m for r in rhos if (m := results.at(Place(OURS, None, r))) is not None]
    positions = np.arange(len(rhos))
    bottom = np.zeros(len(rhos))
    shades = mpl.colormaps["viridis"](np.linspace(0.92, 0.05, results.num_exits))
    for k in range(results.num_exits):
        # Of all arrivals, so that what was not answered is seen as the gap to the top.
        heights = np.array(
            [
                100
                * (m.summary.exit_shares[k] if m.summary.exit_shares else 0.0)
                * _answered(m.runs)
                for m in measured
            ]
        )
        axes.bar(positions, heights, bottom=bottom, color=shades[k], width=0.72, label=f"exit {k}")
        bottom += heights
    axes.set_xticks(positions, [f"{r:g}" for r in rhos])
    axes.set_xlabel("offered load ρ")
    axes.set_ylabel("% of all arrivals")
    axes.set_ylim(0, 100)
    axes.grid(visible=False, axis="x")
    axes.set_title(f"Where {OURS} answers, {DEADLINE_MS:g} ms", loc="left", weight="bold")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _answered(runs: Sequence[Any]) -> float:
    return float(np.concatenate([run.is_answered for run in runs]).mean())


def _line(axes: Any, results: Results, server: str, *, index: int, what: str) -> None:  # noqa: ANN401 - matplotlib's axes
    rhos = [r for r in results.rhos if results.at(Place(server, None, r)) is not None]
    found = [m for r in rhos if (m := results.at(Place(server, None, r))) is not None]
    values = [100 * getattr(m.summary, what) for m in found]
    axes.plot(
        rhos,
        values,
        marker=_MARKERS[index % len(_MARKERS)],
        color=_COLOURS[index % len(_COLOURS)],
        linewidth=2.2 if index == 0 else 1.6,
        markersize=5.5,
        label=server,
        zorder=5 if index == 0 else 3,
    )


def _static_line(axes: Any, results: Results, server: str, index: int) -> None:  # noqa: ANN401 - matplotlib's axes
    if not results.plan.has_statics:
        return
    best = [(r, b) for r in results.rhos if (b := results.best_static(server, r)) is not None]
    axes.plot(
        [rho for rho, _ in best],
        [100 * float(m.first.is_useful.mean()) for _, (_, m) in best],
        linestyle=":",
        color=_COLOURS[index % len(_COLOURS)],
        linewidth=1.4,
        label=f"{server}, best static exit",
    )


def _bound_lines(axes: Any, results: Results) -> None:  # noqa: ANN401 - matplotlib's axes
    rhos = [r for r in results.rhos if results.bounds_at(r)]
    if not rhos:
        return
    for what, style, label in (
        ("label_oracle", (0, (1, 1)), "label oracle"),
        ("bound", "-", "clairvoyant bound"),
        ("exit_0_for_all", (0, (5, 1, 1, 1)), "exit 0 for all"),
    ):
        means = [100 * np.mean([getattr(b, what) for b in results.bounds_at(r)]) for r in rhos]
        axes.plot(rhos, means, linestyle=style, color="#111111", linewidth=1.1, label=label)


def _finish(axes: Any, results: Results) -> None:  # noqa: ANN401 - matplotlib's axes
    axes.set_xlabel(
        f"offered load ρ (1 = {results.yardstick.reference_hz:.0f} requests/s, "
        "the best full-depth throughput)"
    )
    axes.set_xticks(results.rhos, [f"{r:g}" for r in results.rhos])
    axes.set_ylim(0, 101)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
