"""Chooses a peer's settings in good faith: whatever answers most images rightly in time.

First the layout of workers and threads that does most in a closed loop; then, one axis after
another for as long as there is time, what is right in time of open-loop arrivals at full depth,
averaged over a rate just below that layout's best and one well above it. Every trial gets the same
arrivals.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Final

from benchmarks.serving.noise import MAX_SHARE
from benchmarks.serving.peers.bench import Bench
from benchmarks.serving.peers.environments import versions
from benchmarks.serving.peers.settings import PeerSettings, SearchResult, Status, Trial

LOADS: Final = (0.9, 1.5)  # arrivals ÷ what the best layout does in a closed loop

Change = Mapping[str, float]  # new values of some settings
Axis = Sequence[Change]
Report = Callable[[str], object]


def _values(name: str, *values: float) -> Axis:
    return [{name: value} for value in values]


_QUEUES: Final = _values("queue_deadlines", 0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 1.2)
_BATCHES: Final = _values("max_batch_size", 1, 2, 3, 4, 6, 8, 16)
_LAYOUTS: Final[Axis] = (
    {"workers": 2, "threads": 1, "may_spin": False},
    {"workers": 1, "threads": 2, "may_spin": True},
    {"workers": 1, "threads": 2, "may_spin": False},
    {"workers": 1, "threads": 1, "may_spin": False},
    {"workers": 3, "threads": 1, "may_spin": False},
)
AXES: Final[Mapping[str, Sequence[Axis]]] = {
    "litserve": (
        _QUEUES,
        _BATCHES,
        _values("expiry", 0.4, 0.6, 0.8),
        _values("batch_wait_ms", 0, 0.5, 1, 2, 5),
        _values("front_ends", 1, 2),
        _LAYOUTS,
    ),
    "mosec": (
        _QUEUES,
        _BATCHES,
        _values("batch_wait_ms", 0, 1, 2, 5),
        _values("expiry", 0.8, 0.9, 1.0),
        _LAYOUTS,
    ),
}


def search(
    bench: Bench, begin: SearchResult, *, is_time_left: Callable[[], bool], report: Report
) -> SearchResult:
    """Return the best settings found.

    Args:
        bench: Where.
        begin: Settings to begin with.
        is_time_left: Asked before every trial.
        report: Called with a line for every measurement.
    """
    found = _with_layout(bench, begin, report)

    def measure(settings: PeerSettings) -> Trial:
        trial = bench.trial(found.model_copy(update={"chosen": settings}))
        report(f"{trial.score:.4f} {trial.accuracies} {trial.settings}")
        return trial

    trials = climb(found.chosen, AXES[bench.peer], measure=measure, is_time_left=is_time_left)
    return found.model_copy(
        update={"status": status_of(trials), "chosen": trials[0].settings, "trials": trials}
    )


def climb(
    begin: PeerSettings,
    axes: Sequence[Axis],
    *,
    measure: Callable[[PeerSettings], Trial],
    is_time_left: Callable[[], bool],
) -> tuple[Trial, ...]:
    """Try every value of one axis after another beside the best so far; return all, best first.

    Ends, too, when a pass over all axes brought nothing that had not been tried.
    """
    tried = {begin: measure(begin)}
    num_before = 0
    while len(tried) > num_before:
        num_before = len(tried)
        for axis in axes:
            best = _ranked(tried.values())[0].settings
            for settings in (best.changed(change) for change in axis):
                if settings not in tried and is_time_left():
                    tried[settings] = measure(settings)
    return _ranked(tried.values())


def status_of(trials: Sequence[Trial]) -> Status:
    """Return whether the machine was quiet enough for the choice to stand."""
    is_quiet = median(trial.foreign_share for trial in trials) <= MAX_SHARE
    return "searched" if is_quiet else "provisional"


def _ranked(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    return tuple(sorted(trials, key=lambda trial: trial.score, reverse=True))


def _with_layout(bench: Bench, begin: SearchResult, report: Report) -> SearchResult:
    """Return `begin` with the layout that does most, and with the rates that follow from it."""
    rate_by_settings: dict[PeerSettings, float] = {}
    for settings in (begin.chosen.changed(change) for change in _LAYOUTS):
        candidate = begin.model_copy(update={"chosen": settings})
        rate_by_settings[settings] = bench.images_per_s(candidate, None)
        report(f"{rate_by_settings[settings]:.0f}/s {settings}")
    best, full_hz = max(rate_by_settings.items(), key=lambda pair: pair[1])
    first_hz = bench.images_per_s(begin.model_copy(update={"chosen": best}), 0)
    report(f"exit 0: {first_hz:.0f}/s")
    return begin.model_copy(
        update={
            "chosen": best,
            "versions": versions(bench.peer),
            "service_ms": (1e3 / first_hz, 1e3 / full_hz),
            "rates_hz": tuple(round(share * full_hz, 1) for share in LOADS),
        }
    )
