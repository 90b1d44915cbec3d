"""Which parameters are stepped by which optimiser, and at what rate."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.muon import Muon
from training.recipe import Recipe

_COLOURS = 3  # channels that the first convolution reads


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return the recipe's optimisers: SGD, and Muon for inner kernels where the recipe has it.

    The first convolution reads three channels and is left to SGD, as are batch norm and the linear
    layers. Weight decay is for weights: batch norm's scale and shift and biases have none.
    """
    inner = _inner_kernels(model) if recipe.muon is not None else []
    taken = {id(p) for p in inner}
    rest = [p for p in model.parameters() if id(p) not in taken]
    sgd = torch.optim.SGD(
        [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.sgd.decay},
            {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=recipe.sgd.rate,
        momentum=recipe.sgd.momentum,
        nesterov=True,
    )
    optimizers: list[torch.optim.Optimizer] = [sgd]
    if recipe.muon is not None:
        muon = recipe.muon
        optimizers.append(
            Muon(inner, lr=muon.rate, momentum=muon.momentum, weight_decay=muon.decay)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_rates(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Set every learning rate to its peak times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def _inner_kernels(model: nn.Module) -> list[Tensor]:
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return [m.weight for m in convolutions if m.in_channels > _COLOURS]
