"""Rules for one image on its own: go on or stop, knowing how sure the latest exit was.

No queue, no batch, no deadline. Times are what each part of the network takes at its very fastest.
`rule_search` finds the best rules.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ImageTimes:
    """Lane-seconds of one image, by part of the network.

    Raises:
        ValueError: Not every stage has both parts, or a time is negative.
    """

    trunk_s: tuple[float, ...]  # (K,)
    classifier_s: tuple[float, ...]  # (K,)
    arrival_s: float = 0.0  # of the front end, for each image that is classified at all

    def __post_init__(self) -> None:
        if not self.trunk_s or len(self.trunk_s) != len(self.classifier_s):
            raise ValueError(
                f"{len(self.trunk_s)} trunks and {len(self.classifier_s)} classifiers: "
                "each stage has one of both"
            )
        if min(*self.trunk_s, *self.classifier_s, self.arrival_s) < 0:
            raise ValueError(f"negative times: {self}")

    @property
    def num_exits(self) -> int:
        """K."""
        return len(self.trunk_s)

    def straight_s(self, last_exit: int | None, exit_index: int) -> float:
        """Return the time from one exit to a deeper one, classifying only there.

        Args:
            last_exit: Where the image stands; None: it has just arrived.
            exit_index: Where it goes.
        """
        first = 0 if last_exit is None else last_exit + 1
        arrival_s = self.arrival_s if last_exit is None else 0.0
        return arrival_s + sum(self.trunk_s[first : exit_index + 1]) + self.classifier_s[exit_index]

    def steps_s(self) -> _Floats:
        """Return the time from each exit to each deeper one, shape ``(K, K)``, 0 for staying."""
        steps = np.zeros((self.num_exits, self.num_exits))
        for j in range(self.num_exits):
            for k in range(j):
                steps[k, j] = self.straight_s(k, j)
        return steps


@dataclass(frozen=True, slots=True)
class Gain:
    """What a rule takes and achieves, expected over images."""

    time_s: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class ConfidenceBins:
    """Test images by how sure each exit is of them, in bins of about equal size.

    Attributes:
        bins: Of each image at each exit, shape ``(N, K)``, from 0.
        is_right: Shape ``(N, K)``.
        num_bins: At every exit.
    """

    bins: NDArray[np.int64]
    is_right: NDArray[np.bool_]
    num_bins: int

    @classmethod
    def build(
        cls, confidences: _Floats, is_right: NDArray[np.bool_], *, num_bins: int
    ) -> "ConfidenceBins":
        """Sort images into bins.

        Args:
            confidences: Shape ``(N, K)``.
            is_right: Whether the answer is the label, shape ``(N, K)``.
            num_bins: At each exit; at most N.
        """
        num_images = len(confidences)
        ranks = confidences.argsort(axis=0, kind="stable").argsort(axis=0)
        return cls(ranks * num_bins // num_images, is_right, num_bins)

    @property
    def num_images(self) -> int:
        """N."""
        return int(self.bins.shape[0])

    @property
    def num_exits(self) -> int:
        """K."""
        return int(self.bins.shape[1])

    @cached_property
    def accuracies(self) -> _Floats:
        """Accuracy at each exit of each of its bins, shape ``(K, bins)``."""
        return np.stack(
            [
                np.bincount(self.bins[:, k], self.is_right[:, k], self.num_bins) / self._sizes[k]
                for k in range(self.num_exits)
            ]
        )

    @cached_property
    def moves(self) -> dict[tuple[int, int], _Floats]:
        """P(bin at exit j | bin at exit k) by (k, j), k < j, each of shape ``(bins, bins)``."""
        return {
            (k, j): self._counts(k, j) / self._sizes[k][:, np.newaxis]
            for j in range(self.num_exits)
            for k in range(j)
        }

    @cached_property
    def shares(self) -> _Floats:
        """Share of all images in each bin of each exit, shape ``(K, bins)``."""
        return self._sizes / len(self.bins)

    @cached_property
    def _sizes(self) -> _Floats:
        counts = [np.bincount(column, minlength=self.num_bins) for column in self.bins.T]
        # An empty bin is entered by nobody; 1 keeps its quotients finite.
        return np.maximum(np.stack(counts), 1).astype(np.float64)

    def _counts(self, k: int, j: int) -> _Floats:
        pairs = self.bins[:, k] * self.num_bins + self.bins[:, j]
        counts = np.bincount(pairs, minlength=self.num_bins**2)
        return counts.reshape(self.num_bins, self.num_bins).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class StoppingRule:
    """Where an image goes from each exit and bin.

    Attributes:
        first_exit: Of every image; None: it is not classified.
        next_exit: Shape ``(K, bins)``; an exit's own index: stop there.
        expected: What whoever found the rule expects of it.
    """

    first_exit: int | None
    next_exit: NDArray[np.int64]
    expected: Gain

    def replay(self, table: ConfidenceBins, times: ImageTimes) -> Gain:
        """Return what the rule takes and achieves on the table's own images."""
        if self.first_exit is None:
            return Gain(0.0, 0.0)
        everyone = np.arange(len(table.bins))
        exits = np.full(len(table.bins), self.first_exit)
        spent_s = np.full(len(table.bins), times.straight_s(None, self.first_exit))
        steps_s = times.steps_s()
        for _ in range(table.num_exits):
            following = self.next_exit[exits, table.bins[everyone, exits]]
            spent_s += steps_s[exits, following]
            exits = following
        return Gain(float(spent_s.mean()), float(table.is_right[everyone, exits].mean()))
