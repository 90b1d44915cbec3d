"""How a network is cut into stages: each node once, no sooner than needed, no more handed on."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.msdnet.lazy import (
    Node,
    StagePlan,
    eager_nodes,
    inputs_of,
    lazy_nodes,
    plan_stages,
)
from training.models.msdnet.network import MSDNet, Stage
from training.models.msdnet.shape import MSDNetShape, Stem
from training.recipe import load_recipe

SEVEN_EXITS = load_recipe("cifar10_7exits_cpu").network.shape(10)


@st.composite
def shapes(draw: st.DrawFn) -> MSDNetShape:
    num_scales = draw(st.integers(1, 4))
    layers = draw(st.sets(st.integers(1, 40), min_size=1, max_size=8))
    return MSDNetShape(
        stem=draw(st.sampled_from(Stem)),
        image_size=draw(st.sampled_from([256, 300])),
        num_classes=10,
        seed_units=draw(st.integers(1, 8)),
        growth_units=draw(st.integers(1, 8)),
        width_factors=(1, 2, 4, 8)[:num_scales],
        bottleneck_factors=(1, 2, 4, 4)[:num_scales],
        exit_layers=tuple(sorted(layers)),
    )


@given(shape=shapes())
@settings(deadline=None)
def test_stages_together_compute_what_the_exits_need_each_node_once(shape: MSDNetShape):
    plans = plan_stages(shape)

    computed = [node for plan in plans for node in plan.compute]
    num_exits = len(shape.exit_layers)
    assert len(plans) == num_exits
    assert len(set(computed)) == len(computed)
    assert set(computed) == frozenset().union(*(lazy_nodes(shape, k) for k in range(num_exits)))
    for exit_index, plan in enumerate(plans):
        assert set(plan.compute) <= lazy_nodes(shape, exit_index) <= eager_nodes(shape, exit_index)


@given(shape=shapes())
@settings(deadline=None)
def test_the_last_exit_needs_whatever_an_earlier_one_needed(shape: MSDNetShape):
    num_exits = len(shape.exit_layers)

    last = lazy_nodes(shape, num_exits - 1)

    assert all(lazy_nodes(shape, k) <= last for k in range(num_exits))


@given(shape=shapes())
@settings(deadline=None)
def test_a_stage_reads_what_the_one_before_it_writes(shape: MSDNetShape):
    plans = plan_stages(shape)

    assert plans[0].reads == ()
    assert plans[-1].writes == ()
    assert all(b.reads == a.writes for a, b in pairwise(plans))


@given(shape=shapes())
@settings(deadline=None)
def test_a_stage_can_compute_its_nodes_in_order_from_what_it_reads(shape: MSDNetShape):
    for plan in plan_stages(shape):
        known = set(plan.reads)
        for node in plan.compute:
            assert set(inputs_of(shape, node)) <= known
            known.add(node)
        assert plan.classifier_input in known
        assert set(plan.writes) <= known


@given(shape=shapes())
@settings(deadline=None)
def test_a_border_holds_one_tensor_a_scale_the_classifiers_last(shape: MSDNetShape):
    for plan in plan_stages(shape)[:-1]:
        scales = [node.scale_index for node in plan.writes]
        assert scales == sorted(set(scales))
        assert plan.writes[-1] == plan.classifier_input


@given(shape=shapes())
@settings(deadline=None)
def test_a_border_holds_nothing_that_no_later_stage_reads(shape: MSDNetShape):
    plans = plan_stages(shape)

    for index, plan in enumerate(plans):
        later = {n for p in plans[index + 1 :] for x in p.compute for n in inputs_of(shape, x)}
        assert set(plan.writes) <= later


def test_lazy_evaluation_leaves_a_finer_scale_a_layer_behind_the_next():
    first = plan_stages(SEVEN_EXITS)[0]

    assert first.writes == tuple(
        Node(layer, is_transition=False, scale_index=scale) for scale, layer in enumerate((2, 3, 4))
    )


def test_an_exit_on_a_transition_reads_the_transformed_features():
    shape = replace(SEVEN_EXITS, exit_layers=(7, 16))

    first = plan_stages(shape)[0]

    assert first.classifier_input == Node(7, is_transition=True, scale_index=2)
    assert Node(7, is_transition=True, scale_index=1) not in first.compute


def test_border_after_exit_0_of_the_default_net_is_28_68_160_channels():
    stage = MSDNet(SEVEN_EXITS).eval().stages[0]

    with torch.inference_mode():
        border = stage(torch.zeros(2, 3, 32, 32))

    assert [tuple(t.shape) for t in border] == [(2, 28, 32, 32), (2, 68, 16, 16), (2, 160, 8, 8)]


@pytest.mark.parametrize("recipe", ["cifar10_7exits_cpu", "cifar10_batch_5exits"])
def test_stages_run_one_by_one_give_the_logits_of_the_whole_network(recipe: str):
    torch.manual_seed(0)
    network = MSDNet(load_recipe(recipe).network.shape(10)).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        whole = network(pixels)

        features: tuple[torch.Tensor, ...] = (pixels,)
        chained = []
        for stage, classifier in zip(network.stages, network.classifiers, strict=True):
            assert isinstance(stage, Stage)
            assert len(features) == stage.num_inputs
            features = stage(*features)
            assert len(features) == max(1, stage.num_border_tensors)
            chained.append(classifier(features[-1]))

    assert all(torch.equal(a, b) for a, b in zip(chained, whole, strict=True))


def test_lazily_evaluated_logits_are_those_of_evaluating_every_scale():
    torch.manual_seed(0)
    network = MSDNet(SEVEN_EXITS).eval()
    pixels = torch.randn(2, 3, 32, 32)

    with torch.inference_mode():
        lazy = network(pixels)
        eager = evaluate_layer_by_layer(network, pixels)

    assert all(torch.equal(a, b) for a, b in zip(lazy, eager, strict=True))


def evaluate_layer_by_layer(network: MSDNet, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Run every node that was built, in the order of layers, as the released code would."""
    shape, plans = network.shape, plan_stages(network.shape)
    modules = {n: m for p, s in zip(plans, network.stages, strict=True) for n, m in built(p, s)}
    known: dict[Node, torch.Tensor] = {}
    for node in sorted(modules):
        sources = [known[n] for n in inputs_of(shape, node)] or [pixels]
        known[node] = modules[node](*sources)
    heads = zip(plans, network.classifiers, strict=True)
    return [head(known[plan.classifier_input]) for plan, head in heads]


def built(plan: StagePlan, stage: torch.nn.Module) -> list[tuple[Node, torch.nn.Module]]:
    assert isinstance(stage, Stage)
    return list(zip(plan.compute, stage.nodes.values(), strict=True))
