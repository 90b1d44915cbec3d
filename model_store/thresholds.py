"""From shares to thresholds: which confidence lets the wanted share of the hold-out set leave.

Thresholds only aim. What keeps a budget is the ledger, which meters each step.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

_REMEMBERED_FITS: Final = 64  # a client repeats its budget; a fit is a tenth of a kilobyte


class HoldoutConfidences:
    """Confidences of the hold-out images at every exit, sorted once for any number of fits.

    Args:
        confidences: Calibrated, float64, shape ``(images, exits)``, in ``[0, 1]``.

    Attributes:
        num_images: Rows of the table, n.
        num_exits: Columns of the table, K.

    Raises:
        ValueError: The table is empty or not two-dimensional, or holds a NaN.
    """

    def __init__(self, confidences: NDArray[np.float64]) -> None:
        table = np.asarray(confidences, dtype=np.float64)
        if table.ndim != len(("images", "exits")) or table.size == 0:
            raise ValueError(f"hold-out confidences need images and exits, not {table.shape}")
        if np.isnan(table).any():
            raise ValueError("hold-out confidences hold a NaN, which no threshold can be")
        # Each exit's column lies together in memory, most confident first, as its negative: rising.
        self._orders = np.argsort(-table.T, axis=1, kind="stable")
        self._negatives = np.take_along_axis(-table.T, self._orders, axis=1)
        self.num_exits, self.num_images = int(table.shape[1]), int(table.shape[0])
        self._fit_once = lru_cache(_REMEMBERED_FITS)(self._fit)

    def thresholds(self, cumulative_counts: Sequence[int]) -> tuple[float | None, ...]:
        """Return the confidences from which on images leave, so that N_k have left by exit k.

        Source: Huang et al. 2018, arXiv 1703.09844 v1, §5.2. Each exit looks at those who are left
        of the exits before, and hands on to the next what ties made it miss. Without ties the
        counts are met exactly.

        Args:
            cumulative_counts: N_1 <= … <= N_K = n.

        Returns:
            K thresholds, each a confidence of the table, 0 (all leave) or None (nobody leaves);
            the last is 0.

        Raises:
            ValueError: The counts are not K, fall, or do not end at n.
        """
        asked = tuple(cumulative_counts)
        if len(asked) != self.num_exits or asked[-1] != self.num_images or _falls(asked):
            raise ValueError(
                f"cumulative counts {asked} for {self.num_images} images at {self.num_exits} exits"
            )
        return self._fit_once(asked)

    def _fit(self, asked: tuple[int, ...]) -> tuple[float | None, ...]:
        is_alive = np.ones(self.num_images, dtype=np.bool_)
        num_left = 0
        fitted: list[float | None] = []
        for order, negatives, wanted in zip(self._orders, self._negatives, asked, strict=True):
            if self.num_images in (wanted, num_left):
                fitted.append(0.0)
                num_left = self.num_images
                continue
            if wanted <= num_left:
                fitted.append(None)
                continue
            stands = is_alive[order]
            standing = negatives[stands]
            num_leaving = _nearest_tie_end(standing, wanted - num_left)
            fitted.append(-float(standing[num_leaving - 1]) if num_leaving else None)
            is_alive[order[stands][:num_leaving]] = False
            num_left += num_leaving
        return tuple(fitted)


def first_exits(
    confidences: NDArray[np.float64], thresholds: Sequence[float | None]
) -> NDArray[np.int64]:
    """Return the first exit at which each image meets the threshold: p >= θ leaves.

    Args:
        confidences: Shape ``(images, exits)``.
        thresholds: One per exit; None lets nobody leave. The last is not looked at.

    Returns:
        Exit indices, shape ``(images,)``; the last exit where no threshold was met.
    """
    leaves = np.ones(confidences.shape, dtype=np.bool_)
    for exit_index, threshold in enumerate(thresholds[:-1]):
        if threshold is None:
            leaves[:, exit_index] = False
        else:
            leaves[:, exit_index] = confidences[:, exit_index] >= threshold
    exits: NDArray[np.int64] = np.argmax(leaves, axis=1)
    return exits


def _nearest_tie_end(negatives: NDArray[np.float64], wanted: int) -> int:
    """Return how many leave, about `wanted`, so that equal confidences leave or stay together.

    A draw lets the group leave, which is cheaper.
    """
    at_cut = negatives[wanted - 1]
    above = int(np.searchsorted(negatives, at_cut, side="left"))
    upto = int(np.searchsorted(negatives, at_cut, side="right"))
    return upto if upto - wanted <= wanted - above else above


def _falls(counts: Sequence[int]) -> bool:
    return any(later < earlier for earlier, later in pairwise(counts))
