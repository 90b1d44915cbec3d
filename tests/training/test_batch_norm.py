"""Batch norm's statistics of averaged weights."""

import pytest
import torch
from torch import nn

from training.batch_norm import refresh_statistics
from training.data import ArrayImages
from training.distributed import World
from training.recipe import Recipe

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def test_statistics_are_those_of_the_training_images_and_weights_stay(tiny_recipe: Recipe):
    recipe = tiny_recipe.model_copy(update={"bf16": False})
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, 8, 8), generator=draw, dtype=torch.uint8)
    images = ArrayImages(pixels, torch.zeros(60, dtype=torch.int64))
    norm = nn.BatchNorm2d(3)
    before = norm.weight.clone()

    refresh_statistics(nn.Sequential(norm), images, recipe, ALONE)

    expected = (pixels.float() / 255).mean(dim=(0, 2, 3)) - torch.tensor(recipe.data.mean)
    wanted = (expected / torch.tensor(recipe.data.std)).tolist()
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == pytest.approx(wanted, abs=1e-3)
    assert torch.equal(norm.weight, before)
