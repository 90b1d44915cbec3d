"""The figures of one server under one load, over all arrivals of its runs together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.serving.judge import NOTHING, Floats, Outcomes


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of a set of durations in ms; None where there are none."""

    p50: float | None
    p99: float | None
    p999: float | None
    most: float | None

    @classmethod
    def of(cls, values: Floats) -> "Percentiles":
        """Return them, NaN left out."""
        known = values[~np.isnan(values)]
        if not len(known):
            return cls(None, None, None, None)
        p50, p99, p999 = np.percentile(known, [50, 99, 99.9])
        return cls(float(p50), float(p99), float(p999), float(known.max()))


@dataclass(frozen=True, slots=True)
class Summary:
    """Shares are of all arrivals unless said otherwise."""

    num_arrivals: int
    attainment: float  # in time
    accuracy: float  # right and in time
    accuracy_by_run: tuple[float, ...]
    goodput_hz: float  # answers in time a second
    refused: float
    statuses: dict[int, int]  # how many of each; 0: no answer
    unsent: int
    latency_ms: Percentiles  # of 200s
    refusal_ms: Percentiles  # scheduled send → refusal
    lateness_ms: Percentiles  # of 200s, beyond the deadline; 0 where it was met
    queue_ms: Percentiles
    compute_ms: Percentiles
    exit_shares: tuple[float, ...]  # of 200s that say their exit
    own_attainment: float | None  # the server's own word, over all arrivals


def summarise(runs: Sequence[Outcomes], *, num_exits: int) -> Summary:
    """Return the figures of runs of one cell's repeats.

    Raises:
        ValueError: There are none.
    """
    if not runs:
        raise ValueError("no run to summarise")
    statuses = np.concatenate([run.statuses for run in runs])
    number = max(len(statuses), 1)
    late_ms = [np.maximum(run.latency_ms[run.is_answered] - run.deadline_ms, 0.0) for run in runs]
    words = np.concatenate([run.own_word for run in runs])
    return Summary(
        num_arrivals=len(statuses),
        attainment=_share(runs, "is_in_time"),
        accuracy=_share(runs, "is_useful"),
        accuracy_by_run=tuple(float(run.is_useful.mean()) for run in runs),
        goodput_hz=sum(int(run.is_in_time.sum()) for run in runs) / sum(r.seconds for r in runs),
        refused=_share(runs, "is_refused"),
        statuses={int(s): int((statuses == s).sum()) for s in np.unique(statuses)},
        unsent=int(sum(np.isnan(run.lag_ms).sum() for run in runs)),
        latency_ms=Percentiles.of(_of(runs, "latency_ms", "is_answered")),
        refusal_ms=Percentiles.of(_of(runs, "latency_ms", "is_refused")),
        lateness_ms=Percentiles.of(np.concatenate(late_ms)),
        queue_ms=Percentiles.of(_of(runs, "queue_ms", "is_answered")),
        compute_ms=Percentiles.of(_of(runs, "compute_ms", "is_answered")),
        exit_shares=_exit_shares(runs, num_exits),
        own_attainment=None if (words == NOTHING).all() else float((words == 1).sum() / number),
    )


def paired_difference(ours: Sequence[Outcomes], theirs: Sequence[Outcomes]) -> tuple[float, float]:
    """Return by how much our accuracy under deadline is above another's, and its standard error.

    Both served the same arrivals, which are compared one by one; where one run is shorter, only
    those it had.

    Raises:
        ValueError: The arrivals differ.
    """
    differences = []
    for a, b in zip(ours, theirs, strict=True):
        number = min(len(a.statuses), len(b.statuses))
        if not np.array_equal(a.image_indices[:number], b.image_indices[:number]):
            raise ValueError("two runs of different traces have no pairs")
        differences.append(a.is_useful[:number].astype(np.float64) - b.is_useful[:number])
    joined = np.concatenate(differences)
    return float(joined.mean()), float(joined.std() / np.sqrt(max(len(joined), 1)))


def _share(runs: Sequence[Outcomes], what: str) -> float:
    return float(np.concatenate([getattr(run, what) for run in runs]).mean())


def _of(runs: Sequence[Outcomes], what: str, of: str) -> Floats:
    return np.concatenate([getattr(run, what)[getattr(run, of)] for run in runs])


def _exit_shares(runs: Sequence[Outcomes], num_exits: int) -> tuple[float, ...]:
    exits = np.concatenate([run.exits[run.is_answered] for run in runs])
    known = exits[exits != NOTHING]
    if not len(known):
        return ()
    return tuple(float(n) for n in np.bincount(known, minlength=num_exits) / len(known))
