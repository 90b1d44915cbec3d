"""Finds the rule that maximises accuracy − λ · time, by one dynamic programme for each λ.

Two ways to say what lies behind a bin. `by_bins` believes that the bin now says all there is to
say, so that a bin is worth the same however an image came there. That flatters: an image that was
hard at one exit and is easy at the next is less often right than the others of its bin. `by_images`
adds up what becomes of the images themselves, so that its expectation is what its rule achieves on
them; its bins being fine, and cut on the same images, it still does better than on any others.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.stopping_rules import ConfidenceBins, Gain, ImageTimes, StoppingRule

RuleSearch = Callable[[ConfidenceBins, ImageTimes, float], StoppingRule]
"""Of a table, times, and λ, the accuracy that a lane-second costs."""

_ROUNDS: Final = (
    4  # who arrives somewhere depends on the rule before it; it settles in two or three
)


def by_bins(table: ConfidenceBins, times: ImageTimes, price_per_s: float) -> StoppingRule:
    """Return the best rule if bins lead to bins as a Markov chain."""
    accuracy, time_s = table.accuracies.copy(), np.zeros_like(table.accuracies)
    next_exit = _stay(table)
    for k in reversed(range(table.num_exits)):
        for j in range(k + 1, table.num_exits):
            deeper = table.moves[k, j] @ accuracy[j]
            deeper_s = table.moves[k, j] @ time_s[j] + times.straight_s(k, j)
            is_better = deeper - price_per_s * deeper_s > accuracy[k] - price_per_s * time_s[k]
            accuracy[k] = np.where(is_better, deeper, accuracy[k])
            time_s[k] = np.where(is_better, deeper_s, time_s[k])
            next_exit[k, is_better] = j
    firsts = [
        Gain(float(table.shares[k] @ time_s[k]), float(table.shares[k] @ accuracy[k]))
        for k in range(table.num_exits)
    ]
    return _begin(firsts, next_exit, times, price_per_s)


def by_images(table: ConfidenceBins, times: ImageTimes, price_per_s: float) -> StoppingRule:
    """Return the best rule found by what becomes of the images of the table."""
    arrives = np.ones(table.bins.shape, dtype=np.bool_)
    rules = []
    for _ in range(_ROUNDS):
        rule = _improve(table, times, price_per_s, arrives)
        rules.append(rule)
        if rule.first_exit is None:
            break
        arrives = _arrivals(table, rule)
    return max(rules, key=lambda rule: _worth(rule.expected, price_per_s))


def _improve(
    table: ConfidenceBins,
    times: ImageTimes,
    price_per_s: float,
    arrives: NDArray[np.bool_],
) -> StoppingRule:
    """Decide from the last exit back, each bin by those of its images that arrive there."""
    accuracy = table.is_right.astype(np.float64)
    time_s = np.zeros_like(accuracy)
    next_exit, steps_s, everyone = _stay(table), times.steps_s(), np.arange(table.num_images)
    for k in reversed(range(table.num_exits)):
        worth = accuracy[:, k:] - price_per_s * (time_s[:, k:] + steps_s[k, k:])
        next_exit[k] = k + _best_by_bin(worth, table, k, arrives[:, k])
        following = next_exit[k, table.bins[:, k]]
        time_s[:, k] = time_s[everyone, following] + steps_s[k, following]
        accuracy[:, k] = accuracy[everyone, following]
    firsts = [
        Gain(float(time_s[:, k].mean()), float(accuracy[:, k].mean()))
        for k in range(table.num_exits)
    ]
    return _begin(firsts, next_exit, times, price_per_s)


def _best_by_bin(
    worth: NDArray[np.float64], table: ConfidenceBins, k: int, arrives: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return which column is worth most in each bin of exit k; by all images where none arrives."""
    bins = table.bins[:, k]
    is_deserted = np.bincount(bins[arrives], minlength=table.num_bins) == 0
    weight = (arrives | is_deserted[bins]).astype(np.float64)
    sums = [np.bincount(bins, weight * column, table.num_bins) for column in worth.T]
    return np.asarray(np.stack(sums).argmax(axis=0))


def _arrivals(table: ConfidenceBins, rule: StoppingRule) -> NDArray[np.bool_]:
    """Return which exits the rule takes each image past, shape ``(N, K)``."""
    everyone = np.arange(table.num_images)
    arrives = np.zeros(table.bins.shape, dtype=np.bool_)
    exits = np.full(table.num_images, rule.first_exit)
    for _ in range(table.num_exits):
        arrives[everyone, exits] = True
        exits = rule.next_exit[exits, table.bins[everyone, exits]]
    return arrives


def _begin(
    firsts: Sequence[Gain], next_exit: NDArray[np.int64], times: ImageTimes, price_per_s: float
) -> StoppingRule:
    """Choose where an image that has just arrived is classified first, if anywhere.

    Args:
        firsts: By exit, what follows once an image is there.
        next_exit: What follows, by exit and bin.
        times: Of one image.
        price_per_s: λ.
    """
    first_exit, best = None, Gain(0.0, 0.0)
    for k, rest in enumerate(firsts):
        whole = Gain(times.straight_s(None, k) + rest.time_s, rest.accuracy)
        if _worth(whole, price_per_s) > _worth(best, price_per_s):
            first_exit, best = k, whole
    return StoppingRule(first_exit, next_exit, best)


def _worth(gain: Gain, price_per_s: float) -> float:
    return gain.accuracy - price_per_s * gain.time_s


def _stay(table: ConfidenceBins) -> NDArray[np.int64]:
    return np.repeat(np.arange(table.num_exits)[:, np.newaxis], table.num_bins, axis=1)
