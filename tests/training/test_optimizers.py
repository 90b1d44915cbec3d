import torch

from training.models.msdnet.network import MSDNet
from training.muon import Muon
from training.optimizers import build_optimizers, set_rates
from training.recipe import Recipe, load_recipe


def group_ids(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    return [[id(p) for p in group["params"]] for group in optimizer.param_groups]


def test_every_parameter_is_stepped_by_exactly_one_optimizer(tiny_recipe: Recipe):
    network = MSDNet(tiny_recipe.network.shape(3))

    optimizers = build_optimizers(network, tiny_recipe)

    stepped = [i for o in optimizers for group in group_ids(o) for i in group]
    assert sorted(stepped) == sorted(id(p) for p in network.parameters())


def test_muon_steps_kernels_but_the_first_and_sgd_the_rest():
    recipe = load_recipe("cifar10_7exits_cpu")

    sgd, muon = build_optimizers(MSDNet(recipe.network.shape(10)), recipe)

    assert isinstance(muon, Muon)
    assert all(p.ndim == 4 for p in muon.param_groups[0]["params"])
    left = [tuple(p.shape) for p in sgd.param_groups[0]["params"]]
    assert sorted(left) == [(10, 128)] * 7 + [(16, 3, 3, 3)]


def test_only_weights_decay(tiny_recipe: Recipe):
    network = MSDNet(tiny_recipe.network.shape(3))

    (sgd,) = build_optimizers(network, tiny_recipe.model_copy(update={"muon": None}))

    decaying, rest = sgd.param_groups
    assert decaying["weight_decay"] == 5e-4
    assert rest["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decaying["params"])
    assert all(p.ndim == 1 for p in rest["params"])
    assert decaying["nesterov"]


def test_rates_are_set_relative_to_their_peaks(tiny_recipe: Recipe):
    optimizers = build_optimizers(MSDNet(tiny_recipe.network.shape(3)), tiny_recipe)

    set_rates(optimizers, 0.5)
    set_rates(optimizers, 0.5)

    rates = [group["lr"] for o in optimizers for group in o.param_groups]
    assert rates == [0.025, 0.025, 0.06]
