"""Which exits, served as static models, can be the best at a load: only those need running.

At rate λ no static model is right and in time more often than accuracy · min(1, capacity ÷ λ), its
closed-loop throughput being all it can answer. Exits are run from the most promising on, until the
best that was measured is out of reach for the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Final

MAX_RUN: Final = 3  # at one load; the report says where more could have been best
_HEADROOM: Final = 1.05  # of capacities, which are measured


def promise(accuracy: float, capacity_hz: float, rate_hz: float) -> float:
    """Return what a static model is at most right and in time, over all arrivals."""
    return accuracy * min(1.0, _HEADROOM * capacity_hz / rate_hz)


def by_promise(
    accuracies: Sequence[float], capacities_hz: Mapping[int, float], rate_hz: float
) -> list[int]:
    """Return the exits, the most promising first; at equal promise the one with more to spare.

    Args:
        accuracies: By exit.
        capacities_hz: By exit, of those that were measured.
        rate_hz: Arrivals a second.
    """
    return sorted(
        capacities_hz,
        key=lambda k: (-promise(accuracies[k], capacities_hz[k], rate_hz), k),
    )


def next_to_run(
    order: Sequence[int],
    measured: Mapping[int, float],
    promises: Mapping[int, float],
) -> int | None:
    """Return the next exit that could still be best, None once there is none.

    Args:
        order: As `by_promise`.
        measured: Accuracy under deadline of the exits that ran.
        promises: By exit.
    """
    if len(measured) >= MAX_RUN:
        return None
    best = max(measured.values(), default=0.0)
    return next((k for k in order if k not in measured and promises[k] > best), None)
