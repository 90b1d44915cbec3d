"""What going deeper should bring: right answers to be won from an exit on, by how sure it is.

A server with too little time for everybody runs first what wins most per millisecond; this is the
table it asks.

Source: Yao et al. 2020, "Scheduling Real-time Deep Learning Services as Imprecise Computations",
arXiv 2011.01112, abstract: a network with exits as a mandatory part and optional ones, of which the
least useful are shed. Imprecise computation itself: Liu et al. 1991, "Algorithms for Scheduling
Imprecise Computations", IEEE Computer 24(5), pp. 58-68.
"""

from bisect import bisect_right
from dataclasses import dataclass
from math import isnan
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from model_store.calibration import Calibration
from model_store.confidence import max_softmax

# Equally full, so that all are known equally well: 312 of 5 000 images tell a gain to 0.03 or
# better. Networks are nearly sure of most images, so half of the bins lie close below 1.
NUM_BINS: Final = 16


@dataclass(frozen=True, slots=True)
class GainTable:
    """Expected gains in accuracy, by exit answered at, bin of its confidence, and deeper exit.

    Made of tuples: it is asked thousands of times a second, one number at a time.
    """

    num_exits: int
    edges: tuple[tuple[float, ...], ...]  # by exit: where its bins but the first begin, rising
    # By answered exit + 1 (0: no answer yet, one bin), bin and exit; 0 up to the answered exit.
    rows: tuple[tuple[tuple[float, ...], ...], ...]

    @classmethod
    def from_calibration(cls, calibration: Calibration) -> Self:
        """Make the table of all hold-out images; it certifies nothing, so none is kept apart."""
        return cls.from_answers(calibration.confidences(), calibration.is_right())

    @classmethod
    def from_logits(
        cls,
        logits: NDArray[np.floating[Any]],
        labels: NDArray[np.int64],
        temperatures: NDArray[np.float64],
    ) -> Self:
        """Make the table of any images.

        Args:
            logits: Shape ``(images, exits, classes)``, finite.
            labels: True classes, shape ``(images,)``.
            temperatures: Of each exit, shape ``(exits,)``, positive.
        """
        by_exit = [max_softmax(logits[:, k], float(t)) for k, t in enumerate(temperatures)]
        is_right = logits.argmax(axis=2) == labels[:, np.newaxis]
        return cls.from_answers(np.stack(by_exit, axis=1), is_right)

    @classmethod
    def from_answers(
        cls,
        confidences: NDArray[np.float64],
        is_right: NDArray[np.bool_],
        *,
        num_bins: int = NUM_BINS,
    ) -> Self:
        """Make the table of how sure, and how right, each exit was of each image.

        Args:
            confidences: Calibrated, shape ``(images, exits)``, in ``[0, 1]``.
            is_right: Shape ``(images, exits)``.
            num_bins: Of each exit, at most; fewer where confidences are equal.

        Raises:
            ValueError: The tables differ in shape or are empty.
        """
        if confidences.shape != is_right.shape or confidences.size == 0:
            raise ValueError(f"{confidences.shape} confidences for {is_right.shape} answers")
        num_exits = confidences.shape[1]
        accuracies = tuple(float(share) for share in is_right.mean(axis=0))
        edges = tuple(_edges(confidences[:, k], num_bins) for k in range(num_exits))
        by_exit = (_gains(confidences[:, k], is_right, k, edges[k]) for k in range(num_exits))
        return cls(num_exits, edges, ((accuracies,), *by_exit))

    def bin_of(self, answered_exit: int, confidence: float) -> int:
        """Return the bin of an answer; 0 where there is none, or it does not say how sure it is."""
        if answered_exit < 0 or isnan(confidence):
            return 0
        return bisect_right(self.edges[answered_exit], confidence)

    def row(self, answered_exit: int, confidence_bin: int) -> tuple[float, ...]:
        """Return the gain of every exit over an answer; see `gain`."""
        return self.rows[answered_exit + 1][confidence_bin]

    def gain(self, answered_exit: int, confidence_bin: int, exit_index: int) -> float:
        """Return how much likelier right the answer of an exit is than the one that is there.

        Right answers that it would spoil are counted against it, so it may be negative. Among the
        bins of one exit it does not rise with confidence.

        Args:
            answered_exit: Where the answer is from; -1 where there is none, so that all of the
                exit's accuracy is gained.
            confidence_bin: From `bin_of`.
            exit_index: The deeper exit; 0 is gained at exits up to the answered one.

        Returns:
            In ``[-1, 1]``.
        """
        return self.row(answered_exit, confidence_bin)[exit_index]


def _edges(confidences: NDArray[np.float64], num_bins: int) -> tuple[float, ...]:
    """Return where equally full bins but the first begin; each at a confidence of the table."""
    shares = np.arange(1, num_bins) / num_bins
    inner = np.unique(np.quantile(confidences, shares, method="higher"))
    return tuple(float(edge) for edge in inner[inner > confidences.min()])


def _gains(
    confidences: NDArray[np.float64],
    is_right: NDArray[np.bool_],
    answered_exit: int,
    edges: tuple[float, ...],
) -> tuple[tuple[float, ...], ...]:
    """Return the gains over one exit's answer, by bin and exit."""
    bins = np.searchsorted(edges, confidences, side="right")
    counts = np.bincount(bins, minlength=len(edges) + 1)
    columns = []
    for exit_index in range(is_right.shape[1]):
        won = is_right[:, exit_index].astype(np.float64) - is_right[:, answered_exit]
        if exit_index <= answered_exit:
            won[:] = 0.0
        columns.append(_falling(_sums(bins, won, len(counts)), counts))
    return tuple(zip(*columns, strict=True))


def _sums(
    bins: NDArray[np.intp], values: NDArray[np.float64], num_bins: int
) -> NDArray[np.float64]:
    return np.bincount(bins, weights=values, minlength=num_bins).astype(np.float64)


def _falling(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> list[float]:
    """Return the means nearest to the bins' own, by squares, that do not rise from bin to bin.

    A surer answer has less to gain; where the table says otherwise, it is by chance, and chance
    shall not rank. Pools adjacent bins that violate the order until none does.

    Source: de Leeuw, Hornik and Mair 2009, "Isotone Optimization in R: Pool-Adjacent-Violators
    Algorithm (PAVA) and Active Set Methods", Journal of Statistical Software 32(5).
    """
    pools: list[tuple[float, int, int]] = []  # sum, images, bins
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        pool = (total, count, 1)
        while pools and pools[-1][0] * pool[1] < pool[0] * pools[-1][1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    return [total / count for total, count, num_bins in pools for _ in range(num_bins)]
