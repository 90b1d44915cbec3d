"""A network run over a whole set, without gradients: what is measured, calibrated and logged."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_store.preprocessing import normalise
from training.augment import normalised
from training.data import ImageSet
from training.distributed import World
from training.recipe import Data, Recipe


@torch.inference_mode()
def run_over(
    network: nn.Module,
    images: ImageSet,
    data: Data,
    *,
    device: torch.device,
    batch_size: int = 250,
) -> NDArray[np.float32]:
    """Return every exit's logits for every image, in full precision, nothing varied.

    Args:
        network: Returns one ``(B, classes)`` tensor an exit; put into evaluation mode.
        images: In their own order.
        data: How pixels are normalised.
        device: Where the network is.
        batch_size: Images run together.

    Returns:
        Shape ``(images, exits, classes)``.
    """
    network.eval()
    parts = []
    for indices in torch.split(torch.arange(len(images.labels), device=device), batch_size):
        # Normalised by the server's own function: thresholds rest on these logits.
        pixels = images.fetch(indices).permute(0, 2, 3, 1).cpu().numpy()
        inputs = torch.from_numpy(normalise(pixels, mean=data.mean, std=data.std)).to(device)
        logits = network(inputs.contiguous(memory_format=torch.channels_last))
        parts.append(torch.stack(logits, dim=1).float().cpu())
    return torch.cat(parts).numpy()


@torch.inference_mode()
def holdout_accuracy(
    network: nn.Module, images: ImageSet, recipe: Recipe, world: World, *, batch_size: int = 250
) -> list[float]:
    """Return each exit's share of right answers, in [0, 1], at the precision of the training.

    The work is split over the processes.
    """
    network.eval()
    mean = torch.tensor(recipe.data.mean, device=world.device)
    std = torch.tensor(recipe.data.std, device=world.device)
    right = torch.zeros(len(recipe.network.exit_layers), device=world.device)
    mine = world.part(torch.arange(len(images.labels), device=world.device))
    for indices in torch.split(mine, batch_size):
        inputs = normalised(images.fetch(indices), mean, std)
        with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = network(inputs.contiguous(memory_format=torch.channels_last))
        right += _count_right(logits, images.labels[indices])
    return [count / len(images.labels) for count in world.total(right).tolist()]


def _count_right(logits_by_exit: list[Tensor], labels: Tensor) -> Tensor:
    return torch.stack([(logits.argmax(1) == labels).sum() for logits in logits_by_exit])
