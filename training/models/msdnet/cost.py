"""MACs and parameters of an MSDNet, counted from its shape alone.

One MAC is one multiply-accumulate; convolutions and linear layers count, batch norm, ReLU, pooling
and concatenation do not, as in most of the literature (which calls them FLOPs). Parameters include
batch norm's scale and shift and the linear bias.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from training.models.msdnet.lazy import Node, eager_nodes, lazy_nodes, plan_stages
from training.models.msdnet.shape import Branch, MSDNetShape, Stem


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of the network takes for one image."""

    macs: int
    parameters: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.macs + other.macs, self.parameters + other.parameters)


_NOTHING = Cost(0, 0)


def lazy_costs(shape: MSDNetShape) -> tuple[Cost, ...]:
    """Return the cost up to each exit, all classifiers on the way included, lazily evaluated."""
    return _cumulative(shape, [lazy_nodes(shape, k) for k in range(len(shape.exit_layers))])


def eager_costs(shape: MSDNetShape) -> tuple[Cost, ...]:
    """Return the cost up to each exit, all classifiers included, every live scale computed."""
    return _cumulative(shape, [eager_nodes(shape, k) for k in range(len(shape.exit_layers))])


def trunk_costs(shape: MSDNetShape) -> tuple[Cost, ...]:
    """Return the cost of each stage alone, its classifier left out."""
    return tuple(_sum(node_cost(shape, n) for n in plan.compute) for plan in plan_stages(shape))


def classifier_costs(shape: MSDNetShape) -> tuple[Cost, ...]:
    """Return the cost of each classifier alone."""
    return tuple(_classifier(shape, k) for k in range(len(shape.exit_layers)))


def node_cost(shape: MSDNetShape, node: Node) -> Cost:
    """Return the cost of computing one node from its inputs."""
    size = shape.scale_size(node.scale_index)
    if node.layer == 0:
        return _seed(shape, node.scale_index)
    if node.is_transition:
        before = shape.layer_channels(node.layer, node.scale_index)
        return _conv(before, shape.channels(node.layer, node.scale_index), 1, size)
    cost = _branch(shape.same_scale_branch(node.layer, node.scale_index), size, size)
    strided = shape.strided_branch(node.layer, node.scale_index)
    if strided is None:
        return cost
    return cost + _branch(strided, shape.scale_size(node.scale_index - 1), size)


def _cumulative(shape: MSDNetShape, nodes: list[frozenset[Node]]) -> tuple[Cost, ...]:
    heads = classifier_costs(shape)
    seen: set[Node] = set()
    costs = []
    for exit_index, needed in enumerate(nodes):
        seen |= needed
        costs.append(_sum(node_cost(shape, n) for n in seen) + _sum(heads[: exit_index + 1]))
    return tuple(costs)


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, start=_NOTHING)


def _conv(in_channels: int, out_channels: int, kernel: int, out_size: int) -> Cost:
    weights = in_channels * out_channels * kernel**2
    return Cost(weights * out_size**2, weights + 2 * out_channels)


def _branch(branch: Branch, in_size: int, out_size: int) -> Cost:
    narrow = _conv(branch.in_channels, branch.bottleneck_channels, 1, in_size)
    return narrow + _conv(branch.bottleneck_channels, branch.out_channels, 3, out_size)


def _seed(shape: MSDNetShape, scale_index: int) -> Cost:
    out_channels = shape.channels(0, scale_index)
    size = shape.scale_size(scale_index)
    if scale_index > 0:
        return _conv(shape.channels(0, scale_index - 1), out_channels, 3, size)
    if shape.stem is Stem.CIFAR:
        return _conv(3, out_channels, 3, size)
    return _conv(3, out_channels, 7, -(-shape.image_size // 2))


def _classifier(shape: MSDNetShape, exit_index: int) -> Cost:
    coarsest = shape.num_scales - 1
    width = shape.classifier_width(exit_index)
    half = -(-shape.scale_size(coarsest) // 2)
    quarter = -(-half // 2)
    linear = shape.linear_features(exit_index) * shape.num_classes
    convolutions = _conv(shape.channels(shape.exit_layers[exit_index], coarsest), width, 3, half)
    return convolutions + _conv(width, width, 3, quarter) + Cost(linear, linear + shape.num_classes)
