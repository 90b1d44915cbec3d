"""One process or several, as `torchrun` started them.

Gradients are averaged by hand in one flat buffer rather than by DistributedDataParallel: the model
is compiled whole, its buffers (batch norm's statistics) ride along, and on a CPU there is no second
stream to overlap with.
"""

import os
from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train one model together."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str) -> Self:
        """Join the group that ``torchrun`` set up in the environment; alone without one."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        rank = int(os.environ.get("RANK", "0"))
        place = torch.device(device)
        if place.type == "cuda":
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(place)
        if size > 1:
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
        return cls(rank, size, place)

    @property
    def is_first(self) -> bool:
        """Say whether this process writes files and shows progress."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """Return this process's share of a global batch; shares differ by one at most."""
        return batch[self.rank :: self.size]

    def average(self, model: nn.Module) -> None:
        """Replace gradients and floating-point buffers by their means over all processes."""
        if self.size == 1:
            return
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        shared = grads + [b for b in model.buffers() if b.is_floating_point()]
        flat = torch.cat([t.reshape(-1) for t in shared])
        dist.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [t.numel() for t in shared])
        for tensor, mean in zip(shared, means, strict=True):
            tensor.copy_(mean.reshape(tensor.shape))

    def total(self, counts: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(counts)
        return counts

    def agree(self, values: Tensor) -> Tensor:
        """Return the first process's values: clocks and signals differ, decisions must not."""
        if self.size > 1:
            dist.broadcast(values, src=0)
        return values

    def leave(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()
