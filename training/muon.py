"""Muon: momentum whose every step is made orthogonal, kernel by kernel.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic that drives singular values towards 1
_ITERATIONS = 3


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised; for convolution kernels, read as out × (in · k · k)."""

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 - torch's own
        """Take one step; kernels of one shape are orthogonalised in one batched product."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for kernels in by_shape.values():
                self._step_alike(kernels, **{k: v for k, v in group.items() if k != "params"})
        return loss

    def _step_alike(
        self, kernels: list[Tensor], *, lr: float, momentum: float, weight_decay: float, **_: object
    ) -> None:
        directions = torch.stack([self._nesterov(kernel, momentum) for kernel in kernels])
        rows, columns = directions.shape[1], directions[0, 0].numel()
        orthogonal = orthogonalised(directions.reshape(len(kernels), rows, columns))
        # A tall update has more rows than its rank: this keeps the size of a row's change the same.
        scale = max(1.0, rows / columns) ** 0.5
        for kernel, update in zip(kernels, orthogonal, strict=True):
            kernel.mul_(1 - lr * weight_decay)
            kernel.add_(update.reshape(kernel.shape).to(kernel.dtype), alpha=-lr * scale)

    def _nesterov(self, kernel: Tensor, momentum: float) -> Tensor:
        grad = kernel.grad
        if grad is None:
            raise ValueError("a kernel without a gradient cannot take a step")
        state = self.state[kernel]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(kernel)
        state["momentum"].mul_(momentum).add_(grad)
        return grad.add(state["momentum"], alpha=momentum)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrices, roughly: singular values end near 1.

    Args:
        matrices: Shape ``(N, rows, columns)``.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x: Tensor = matrices if wide else matrices.mT
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
