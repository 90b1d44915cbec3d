"""Which parts of an MSDNet each stage computes, so that no exit pays for what it does not read.

An exit reads the coarsest scale of its layer; that reads the two coarsest scales one layer earlier,
and so on: at an exit on layer l, scale S-1-j needs to have reached only layer l-j. Stage k computes
what exit k needs and no earlier exit did. The paper (arXiv 1703.09844)
calls it lazy evaluation and counts costs that way; the released code computes every scale.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from training.models.msdnet.shape import MSDNetShape


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One scale's output of a layer (0: the seed column), or of the transition after that layer."""

    layer: int
    is_transition: bool
    scale_index: int


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What one stage reads, computes and hands on, in the order it has to be done."""

    compute: tuple[Node, ...]
    reads: tuple[Node, ...]  # finest scale first; empty for the first stage, which reads pixels
    writes: tuple[Node, ...]  # finest scale first; empty for the last stage
    classifier_input: Node


def output_node(shape: MSDNetShape, layer: int, scale_index: int) -> Node:
    """Return the node that readers of `layer` see: its transition where it has one."""
    return Node(layer, shape.has_transition(layer), scale_index)


def inputs_of(shape: MSDNetShape, node: Node) -> tuple[Node, ...]:
    """Return the nodes that `node` is computed from, its own scale's predecessor first."""
    if node.is_transition:
        return (Node(node.layer, is_transition=False, scale_index=node.scale_index),)
    if node.layer == 0:
        finer = (Node(0, is_transition=False, scale_index=node.scale_index - 1),)
        return finer if node.scale_index > 0 else ()
    before = output_node(shape, node.layer - 1, node.scale_index)
    if shape.strided_branch(node.layer, node.scale_index) is None:
        return (before,)
    return before, output_node(shape, node.layer - 1, node.scale_index - 1)


def eager_nodes(shape: MSDNetShape, exit_index: int) -> frozenset[Node]:
    """Return all nodes of all layers up to an exit, needed or not: what the released code runs."""
    return frozenset(_all_nodes(shape, shape.exit_layers[exit_index]))


def lazy_nodes(shape: MSDNetShape, exit_index: int) -> frozenset[Node]:
    """Return the nodes that one exit's answer depends on."""
    return frozenset(_needed(shape, {_classifier_input(shape, exit_index)}))


def plan_stages(shape: MSDNetShape) -> tuple[StagePlan, ...]:
    """Cut the network into stages, one an exit, that compute each node once, when it is needed."""
    needed = [lazy_nodes(shape, k) for k in range(len(shape.exit_layers))]
    done: set[Node] = set()
    plans = []
    for exit_index, nodes in enumerate(needed):
        before = frozenset(done)
        fresh = nodes - before
        done |= nodes
        later = frozenset[Node]().union(*needed[exit_index + 1 :]) - done
        plans.append(
            StagePlan(
                compute=tuple(sorted(fresh)),
                reads=_read_by(shape, needed[exit_index:], before),
                writes=_by_scale({n for x in later for n in inputs_of(shape, x)} & done),
                classifier_input=_classifier_input(shape, exit_index),
            )
        )
    return tuple(plans)


def _read_by(
    shape: MSDNetShape, needed_from_here: list[frozenset[Node]], before: frozenset[Node]
) -> tuple[Node, ...]:
    # What a later stage reads and this one does not passes through, so it is read here too.
    later = frozenset[Node]().union(*needed_from_here) - before
    return _by_scale({n for x in later for n in inputs_of(shape, x)} & before)


def _by_scale(nodes: set[Node] | frozenset[Node]) -> tuple[Node, ...]:
    return tuple(sorted(nodes, key=lambda node: (node.scale_index, node)))


def _classifier_input(shape: MSDNetShape, exit_index: int) -> Node:
    return output_node(shape, shape.exit_layers[exit_index], shape.num_scales - 1)


def _needed(shape: MSDNetShape, nodes: set[Node]) -> set[Node]:
    found: set[Node] = set()
    while nodes:
        node = nodes.pop()
        found.add(node)
        nodes |= set(inputs_of(shape, node)) - found
    return found


def _all_nodes(shape: MSDNetShape, last_layer: int) -> Iterator[Node]:
    for layer in range(last_layer + 1):
        for scale_index in range(shape.finest_scale(layer), shape.num_scales):
            yield Node(layer, is_transition=False, scale_index=scale_index)
            if shape.has_transition(layer):
                yield Node(layer, is_transition=True, scale_index=scale_index)
