"""Batch norm's statistics for averaged weights, measured rather than averaged.

The statistics that a moving average of the network inherits are averages of other networks' and
belong to none; while steps are large, right answers are lost to that. Source: Izmailov et al. 2018,
"Averaging Weights Leads to Wider Optima and Better Generalization", arXiv 1803.05407, which runs
one more pass for them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from training.augment import normalised
from training.data import ImageSet
from training.distributed import World
from training.recipe import Recipe

_NUM_BATCHES = 25


def refresh_statistics(network: nn.Module, images: ImageSet, recipe: Recipe, world: World) -> None:
    """Measure every batch norm's mean and variance on some training images, as they are.

    Args:
        network: Its running statistics are replaced; its weights are not touched.
        images: Those it was trained on; the same ones are taken every time.
        recipe: Says how they are normalised, and in what precision the network runs.
        world: The processes that share the work.
    """
    with torch.inference_mode(), _autocast(recipe, world):
        update_bn(_inputs(images, recipe, world), network)
        world.average(network)


def _autocast(recipe: Recipe, world: World) -> torch.autocast:
    return torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.bf16)


def _inputs(images: ImageSet, recipe: Recipe, world: World) -> Iterator[Tensor]:
    mean = torch.tensor(recipe.data.mean, device=world.device)
    std = torch.tensor(recipe.data.std, device=world.device)
    draw = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(images.labels), generator=draw)
    for batch in torch.split(order[: _NUM_BATCHES * recipe.batch_size], recipe.batch_size):
        pixels = images.fetch(world.part(batch).to(world.device))
        yield normalised(pixels, mean, std).contiguous(memory_format=torch.channels_last)
