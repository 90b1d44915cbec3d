"""MACs and parameters against those counted on the reference implementation, to the last digit."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from training.models.msdnet.cost import (
    Cost,
    classifier_costs,
    eager_costs,
    lazy_costs,
    trunk_costs,
)
from training.models.msdnet.network import MSDNet
from training.models.msdnet.shape import MSDNetShape
from training.recipe import load_recipe
from training.trained import exit_costs

CIFAR10_ANYTIME = load_recipe("cifar10_11exits_gpu").network.shape(10)
CIFAR100_ANYTIME = load_recipe("cifar100_7exits").network.shape(100)
CIFAR10_BATCH = load_recipe("cifar10_batch_5exits").network.shape(10)
IMAGENET = load_recipe("imagenet_step4").network.shape(1000)
IMAGENET_LITERAL = load_recipe("imagenet_literal23").network.shape(1000)


def batch_shape(num_blocks: int) -> MSDNetShape:
    layers = tuple(k * (k + 1) // 2 for k in range(1, num_blocks + 1))
    return replace(CIFAR10_BATCH, exit_layers=layers)


def printed(numbers: Sequence[int], digits: int) -> list[str]:
    return [f"{number / 1e6:.{digits}f}" for number in numbers]


def words(row: str) -> list[str]:
    return row.split()


def macs(costs: Sequence[Cost]) -> list[int]:
    return [cost.macs for cost in costs]


def parameters(costs: Sequence[Cost]) -> list[int]:
    return [cost.parameters for cost in costs]


def macs_of_one_head(shape: MSDNetShape) -> list[int]:
    """Return what each exit costs when every scale, but of the classifiers only its own, runs."""
    heads = macs(classifier_costs(shape))
    return [c - sum(heads[:k]) for k, c in enumerate(macs(eager_costs(shape)))]


def coarsest_channels(shape: MSDNetShape) -> list[int]:
    return [shape.channels(layer, shape.num_scales - 1) for layer in shape.exit_layers]


def test_cifar10_anytime_net_of_24_layers_costs_what_the_reference_costs():
    shape = CIFAR10_ANYTIME

    assert printed(macs(eager_costs(shape)), 2) == words(
        "14.96 25.24 37.43 51.62 61.69 73.52 87.13 99.39 109.44 120.97 133.97"
    )
    assert printed(macs_of_one_head(shape), 2) == words(
        "14.96 21.70 29.47 38.35 44.80 52.13 60.35 66.35 72.35 78.94 86.11"
    )
    assert printed(macs(lazy_costs(shape)), 2) == words(
        "13.24 23.23 35.13 50.53 60.45 72.13 85.59 99.39 109.44 120.97 133.97"
    )
    assert printed(parameters(eager_costs(shape)), 3) == words(
        "0.422 0.854 1.347 1.781 2.221 2.724 3.288 3.772 4.274 4.840 5.470"
    )
    assert coarsest_channels(shape) == [160, 208, 256, 164, 212, 260, 308, 188, 236, 284, 332]
    assert transitions(shape) == [9, 17]


def test_cifar100_anytime_net_of_16_layers_costs_what_the_reference_costs():
    shape = CIFAR100_ANYTIME

    assert printed(macs(eager_costs(shape)), 2) == words(
        "14.97 25.26 36.78 45.97 56.93 66.53 75.49"
    )
    assert printed(macs_of_one_head(shape), 2) == words("14.97 21.71 28.79 34.80 41.69 46.34 51.89")
    assert printed(macs(lazy_costs(shape)), 2) == words("13.26 23.25 35.76 44.81 55.62 66.53 75.49")
    assert printed(parameters(eager_costs(shape)), 3) == words(
        "0.434 0.877 1.275 1.696 2.178 2.603 3.068"
    )
    assert coarsest_channels(shape) == [160, 208, 140, 188, 236, 152, 200]
    assert transitions(shape) == [7, 13]


def test_a_hundred_classes_add_what_the_reference_adds_to_the_anytime_net():
    shape = replace(CIFAR10_ANYTIME, num_classes=100)

    assert printed(macs(eager_costs(shape))[-1:], 2) == ["134.10"]
    assert printed(parameters(eager_costs(shape))[-1:], 3) == ["5.598"]


@pytest.mark.parametrize(
    ("num_blocks", "eager", "learnt", "transition_layers"),
    [
        pytest.param(4, "6.78 14.19 25.85 37.69", "0.288 0.627 0.987 1.373", [5, 9], id="4-blocks"),
        pytest.param(
            5,
            "6.78 14.19 27.24 41.33 58.03",
            "0.288 0.627 0.983 1.446 2.021",
            [6, 11],
            id="5-blocks",
        ),
        pytest.param(
            6,
            "6.78 14.19 27.01 46.14 66.89 88.49",
            "0.288 0.627 1.077 1.560 2.051 2.783",
            [8, 15],
            id="6-blocks",
        ),
        pytest.param(
            7,
            "6.78 14.19 27.01 48.01 75.84 108.12 136.48",
            "0.288 0.627 1.077 1.681 2.327 2.983 3.885",
            [11, 21],
            id="7-blocks",
        ),
        pytest.param(
            8,
            "6.78 14.19 27.01 48.01 80.95 111.88 152.04 191.73",
            "0.288 0.627 1.077 1.681 2.336 3.115 4.024 5.218",
            [13, 25],
            id="8-blocks",
        ),
    ],
)
def test_cifar10_batch_nets_cost_what_the_reference_costs(
    num_blocks: int, eager: str, learnt: str, transition_layers: list[int]
):
    costs = eager_costs(batch_shape(num_blocks))

    assert printed(macs(costs), 2) == words(eager)
    assert printed(parameters(costs), 3) == words(learnt)
    assert transitions(batch_shape(num_blocks)) == transition_layers


@pytest.mark.parametrize(
    ("num_blocks", "lazy"),
    [
        pytest.param(5, "5.91 12.62 24.47 40.12 58.03", id="5-blocks"),
        pytest.param(7, "5.91 12.62 25.00 45.41 74.45 108.12 136.48", id="7-blocks"),
        pytest.param(8, "5.91 12.62 25.00 45.41 79.63 110.12 152.04 191.73", id="8-blocks"),
    ],
)
def test_cifar10_batch_nets_evaluated_lazily_cost_what_the_reference_would(
    num_blocks: int, lazy: str
):
    costs = lazy_costs(batch_shape(num_blocks))

    assert printed(macs(costs), 2) == words(lazy)


@pytest.mark.parametrize(
    ("shape", "eager", "lazy", "learnt"),
    [
        pytest.param(
            IMAGENET,
            "337.2 681.7 1003.7 1249.6 1355.6",
            "253.7 611.4 960.3 1249.6 1355.6",
            "4.24 8.77 13.07 16.75 23.96",
            id="step-4",
        ),
        pytest.param(
            load_recipe("imagenet_step6").network.shape(1000),
            "511.3 1166.1 1838.3 2494.6 2735.1",
            "410.2 1079.8 1787.8 2424.8 2735.1",
            "7.08 15.69 24.01 42.19 56.53",
            id="step-6",
        ),
        pytest.param(
            load_recipe("imagenet_step7").network.shape(1000),
            "612.0 1430.8 2276.4 2959.9 3246.2",
            "502.0 1334.9 2220.2 2959.9 3246.2",
            "8.76 20.15 31.73 41.86 62.31",
            id="step-7",
        ),
        pytest.param(
            IMAGENET_LITERAL,
            "626.5 959.7 1330.2 1617.4 1738.1",
            "465.1 873.4 1281.2 1617.4 1738.1",
            "4.36 11.52 17.91 22.59 31.10",
            id="literal",
        ),
        pytest.param(
            replace(IMAGENET, seed_units=64),
            "586.4 1015.5 1372.8 1630.4 1740.5",
            "485.2 938.9 1327.9 1630.4 1740.5",
            "7.38 13.27 18.21 22.16 29.73",
            id="step-4-wide",
        ),
        pytest.param(
            replace(IMAGENET_LITERAL, seed_units=64),
            "942.6 1316.4 1720.8 2020.2 2145.3",
            "733.0 1223.7 1670.2 2020.2 2145.3",
            "6.47 15.13 22.28 27.27 36.17",
            id="literal-wide",
        ),
    ],
)
def test_imagenet_nets_cost_what_the_reference_costs(
    shape: MSDNetShape, eager: str, lazy: str, learnt: str
):
    assert printed(macs(eager_costs(shape)), 1) == words(eager)
    assert printed(macs(lazy_costs(shape)), 1) == words(lazy)
    assert printed(parameters(eager_costs(shape)), 2) == words(learnt)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(CIFAR10_ANYTIME, id="anytime-24-layers"),
        pytest.param(CIFAR100_ANYTIME, id="anytime-16-layers"),
        pytest.param(CIFAR10_BATCH, id="batch-15-layers"),
    ],
)
def test_the_built_network_multiplies_and_holds_what_its_shape_says(shape: MSDNetShape):
    network = MSDNet(shape).eval()

    counted = count_macs(network, torch.zeros(2, 3, 32, 32))

    last = lazy_costs(shape)[-1]
    assert counted == last.macs
    # The last exit needs every node that any exit needs: nothing else has been built.
    assert sum(p.numel() for p in network.parameters()) == last.parameters


def test_the_built_imagenet_network_holds_what_its_shape_says():
    network = MSDNet(IMAGENET)

    assert sum(p.numel() for p in network.parameters()) == lazy_costs(IMAGENET)[-1].parameters


def test_stages_and_classifiers_add_up_to_the_lazy_costs_of_the_exits():
    costs = exit_costs(CIFAR10_ANYTIME)

    assert list(costs.cumulative_macs) == macs(lazy_costs(CIFAR10_ANYTIME))
    assert list(costs.trunk_macs) == macs(trunk_costs(CIFAR10_ANYTIME))
    assert costs.direct_macs[-1] == macs_of_one_head(CIFAR10_ANYTIME)[-1]


def transitions(shape: MSDNetShape) -> list[int]:
    return [layer for layer in range(shape.num_layers + 1) if shape.has_transition(layer)]


def count_macs(network: nn.Module, pixels: Tensor) -> int:
    """Return the MACs of one image as the modules that ran did them."""
    counts: list[int] = []

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            counts.append(module.weight.numel() * output.shape[2] * output.shape[3])
        elif isinstance(module, nn.Linear):
            counts.append(module.weight.numel())

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.inference_mode():
        network(pixels)
    return sum(counts)
