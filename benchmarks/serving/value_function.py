"""f: the most that a mean of so many lane-seconds an image can be worth, in expected accuracy.

Concave, from the origin: mixing rules, and leaving some images out, is always possible.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.rule_search import RuleSearch
from benchmarks.serving.stopping_rules import ConfidenceBins, Gain, ImageTimes

_RESOLUTION: Final = 1e-7  # of accuracy: what rises less above the curve is on it
_NUM_PRICES: Final = 40  # asked to begin with: a search that is not exact wants many starts
_LEAST_PRICE: Final = 1e-4  # of the dearest


@dataclass(frozen=True, slots=True, eq=False)
class ValueFunction:
    """A concave curve by its corners, flat behind the last.

    Attributes:
        times_s: Lane-seconds, rising from 0.
        accuracies: Rising from 0, ever more slowly.
    """

    times_s: NDArray[np.float64]
    accuracies: NDArray[np.float64]

    @classmethod
    def above(cls, gains: Sequence[Gain]) -> "ValueFunction":
        """Return the least concave curve through the origin that no gain lies above."""
        corners = [Gain(0.0, 0.0)]
        for gain in sorted(gains, key=lambda gain: (gain.time_s, -gain.accuracy)):
            if gain.accuracy <= corners[-1].accuracy:
                continue
            while len(corners) > 1 and not _is_concave(corners[-2], corners[-1], gain):
                corners.pop()
            corners.append(gain)
        return cls(
            np.array([corner.time_s for corner in corners]),
            np.array([corner.accuracy for corner in corners]),
        )

    def __call__(self, work_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected accuracy of each amount of work, in lane-seconds."""
        return np.interp(work_s, self.times_s, self.accuracies)

    def at(self, gain: Gain) -> float:
        """Return the accuracy at the time that a gain takes."""
        return float(np.interp(gain.time_s, self.times_s, self.accuracies))

    def joined(self, other: "ValueFunction") -> "ValueFunction":
        """Return the least such curve above both."""
        return ValueFunction.above([*self.corners, *other.corners])

    @property
    def corners(self) -> list[Gain]:
        """The curve's corners, the origin first."""
        pairs = zip(self.times_s.tolist(), self.accuracies.tolist(), strict=True)
        return [Gain(time_s, accuracy) for time_s, accuracy in pairs]


def by_confidence(table: ConfidenceBins, times: ImageTimes, search: RuleSearch) -> ValueFunction:
    """Return f over rules that stop by the bin of the latest confidence.

    Corners are what the search expects of its rules and what the same rules achieve when they are
    replayed on the images: a bin does not say all there is to say, and f must not suffer from that.
    After some prices of all magnitudes the search is asked, for the price of each edge, whether
    anything lies above it, until nothing does.
    """
    gains = [
        Gain(times.straight_s(None, k), float(table.is_right[:, k].mean()))
        for k in range(times.num_exits)
    ]
    curve = ValueFunction.above(gains)
    dearest = max(_slopes(curve))
    prices = {*np.geomspace(_LEAST_PRICE * dearest, dearest, _NUM_PRICES).tolist()}
    asked: set[float] = set()
    while prices:
        for price_per_s in sorted(prices):
            rule = search(table, times, price_per_s)
            found = (rule.expected, rule.replay(table, times))
            gains += [gain for gain in found if gain.accuracy > curve.at(gain) + _RESOLUTION]
        asked |= prices
        curve = ValueFunction.above(gains)
        prices = _slopes(curve) - asked
    return curve


def _slopes(curve: ValueFunction) -> set[float]:
    """Return the accuracy per lane-second of every edge, and 0 for the flat end."""
    slopes = np.diff(curve.accuracies) / np.diff(curve.times_s)
    return {0.0, *slopes.tolist()}


def by_label(is_right: NDArray[np.bool_], times: ImageTimes) -> ValueFunction:
    """Return f of an oracle that knows which exits are right before an image is begun.

    It goes straight to the cheapest of them, and leaves out whom no exit gets right.

    Args:
        is_right: Shape ``(N, K)``.
        times: Of one image.
    """
    straight_s = np.array([times.straight_s(None, k) for k in range(times.num_exits)])
    cheapest_s = np.where(is_right, straight_s, np.inf).min(axis=1)
    prices_s, counts = np.unique(cheapest_s[np.isfinite(cheapest_s)], return_counts=True)
    spent_s = np.cumsum(prices_s * counts) / len(is_right)
    accuracies = np.cumsum(counts) / len(is_right)
    gains = [Gain(float(s), float(a)) for s, a in zip(spent_s, accuracies, strict=True)]
    return ValueFunction.above(gains)


def at_one_exit(is_right: NDArray[np.bool_], times: ImageTimes, exit_index: int) -> ValueFunction:
    """Return f of a server that takes an image to one exit, or nowhere."""
    accuracy = float(is_right[:, exit_index].mean())
    return ValueFunction.above([Gain(times.straight_s(None, exit_index), accuracy)])


def _is_concave(left: Gain, middle: Gain, right: Gain) -> bool:
    """Return whether the middle lies above the chord."""
    rise = (middle.accuracy - left.accuracy) * (right.time_s - left.time_s)
    return rise > (right.accuracy - left.accuracy) * (middle.time_s - left.time_s)
