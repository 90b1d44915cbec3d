"""What a multi-exit network is trained to make small."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_exit_cross_entropy(
    logits_by_exit: Sequence[Tensor],
    labels: Tensor,
    exit_weights: Sequence[float],
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Weighted sum of the exits' mean cross-entropies.

    Source: arXiv 1703.09844, §4, "Loss functions": the weights are uniform there, or follow the
    exit probabilities of a budget distribution.

    Args:
        logits_by_exit: One ``(B, classes)`` tensor an exit.
        labels: int64, shape ``(B,)``.
        exit_weights: One an exit, dimensionless.
        label_smoothing: Share of the target spread over all classes, in [0, 1].
    """
    losses = [
        F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
        for logits in logits_by_exit
    ]
    weighted = [w * loss for w, loss in zip(exit_weights, losses, strict=True)]
    return torch.stack(weighted).sum()
