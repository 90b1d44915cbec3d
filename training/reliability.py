"""How right a network is, and how far its confidence can be believed; NumPy in float64."""

import numpy as np
from numpy.typing import NDArray

_NUM_BINS = 15


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the share of images whose largest logit is the label's, in [0, 1].

    Args:
        logits: Of one exit, shape ``(images, classes)``.
        labels: Shape ``(images,)``.
    """
    return float((logits.argmax(axis=1) == labels).mean())


def negative_log_likelihood(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float = 1.0
) -> float:
    """Return the mean of -ln p(label), in nats.

    Args:
        logits: Of one exit, shape ``(images, classes)``.
        labels: Shape ``(images,)``.
        temperature: T > 0, dimensionless; 1 leaves the logits as they are.
    """
    scaled = logits.astype(np.float64) / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sums - shifted[np.arange(len(labels)), labels]).mean())


def expected_calibration_error(
    confidences: NDArray[np.float64], is_right: NDArray[np.bool_], *, num_bins: int = _NUM_BINS
) -> float:
    """Return the mean distance between confidence and accuracy, by bins of equal width.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, eq. (3);
    bin m holds the confidences in ((m - 1) / M, m / M].

    Args:
        confidences: Of one exit, in [0, 1], shape ``(images,)``.
        is_right: Whether each of them came with the right class.
        num_bins: M.
    """
    bins = np.clip(np.ceil(confidences * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=confidences - is_right, minlength=num_bins)
    # |Σ conf - Σ right| / N over a bin is its share times the distance of its two means.
    return float(np.abs(gaps).sum() / len(confidences))
