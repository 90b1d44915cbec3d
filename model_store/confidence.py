"""Logits to calibrated confidence, by one function wherever a threshold is fitted or compared.

float64 throughout: the softmax of float32 is exactly 1 once the top logit leads by 17, as trained
networks' often do, and equal confidences can be neither ranked nor cut.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def max_softmax(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Return how sure one exit is of its answer, the calibrated largest probability.

    Computed as p = 1 / (1 + u), u = Σ exp((z_j - z_top) / T) over the others, which keeps apart
    what rounding 1 - u to 1 would not until u falls below 1e-16. A row has the same confidence, to
    the bit, in every batch.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", §4.2, eq. 9.

    Args:
        logits: Scores of one exit, shape ``(..., classes)``, finite.
        temperature: T > 0, dimensionless; 1 leaves the logits as they are.

    Returns:
        Shape ``(...)``, in ``[1 / classes, 1]``.

    Raises:
        ValueError: A logit is not finite, or the temperature not finite and positive.
    """
    others, _ = _unnormalised_others(logits, temperature)
    confidences: NDArray[np.float64] = 1.0 / (1.0 + others.sum(axis=-1))
    return confidences.reshape(logits.shape[:-1])


def probabilities(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Return the calibrated probability of every class; the largest is `max_softmax` to the bit.

    Args:
        logits: Scores of one exit, shape ``(..., classes)``, finite.
        temperature: T > 0, dimensionless.

    Returns:
        Shape ``(..., classes)``; each row sums to 1.

    Raises:
        ValueError: A logit is not finite, or the temperature not finite and positive.
    """
    table, top = _unnormalised_others(logits, temperature)
    normaliser = 1.0 + table.sum(axis=-1, keepdims=True)
    table[np.arange(len(table)), top] = 1.0
    table /= normaliser
    return table.reshape(logits.shape)


def _unnormalised_others(
    logits: NDArray[np.floating[Any]], temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return exp((z_j - z_top) / T) with 0 for the top, shape (rows, classes), and the tops."""
    if not (temperature > 0 and np.isfinite(temperature)):
        raise ValueError(f"temperature must be finite and positive, not {temperature}")
    table = np.array(logits, dtype=np.float64, order="C").reshape(-1, logits.shape[-1])
    if not np.isfinite(table).all():
        raise ValueError("logits hold a NaN or an infinity, which no confidence can be made of")
    rows = np.arange(len(table))
    top = table.argmax(axis=1)
    table -= table[rows, top][:, np.newaxis]
    with np.errstate(over="ignore", under="ignore"):  # a hopeless class: exp(-inf) is the 0 meant
        table /= temperature
        np.exp(table, out=table)
    table[rows, top] = 0.0
    return table, top
