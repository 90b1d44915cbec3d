"""Single graphs, and the plan that they are cut from."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from training.export_graphs import concat_graph, gather_graph, onnx_graph
from training.export_parity import Array, Runner, check_parity, staged_logits
from training.export_stages import (
    ExportRefused,
    ExportStage,
    check_chain,
    folded_copy,
    msdnet_stages,
    output_names,
)
from training.models.msdnet.lazy import plan_stages
from training.models.msdnet.network import MSDNet
from training.models.msdnet.shape import MSDNetShape, Stem

SHAPE = MSDNetShape(
    stem=Stem.CIFAR,
    image_size=16,
    num_classes=3,
    seed_units=4,
    growth_units=2,
    width_factors=(1, 2),
    bottleneck_factors=(1, 2),
    exit_layers=(1, 2),
    classifier_channels=8,
)

EXPORTS = pytest.mark.slow  # torch's exporter takes seconds the first time


class Both(nn.Module):
    """Two tensors in, two out."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + b, torch.relu(b)


class Normed(nn.Module):
    """A batch norm with no convolution before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, a: Tensor) -> Tensor:
        normed: Tensor = self.norm(a)
        return normed


def session(graph: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])


def eager(stage: ExportStage) -> tuple[Runner, Runner]:
    """Return trunk and classifier as torch itself runs them."""

    def trunk(arrays: Sequence[Array]) -> list[Array]:
        with torch.inference_mode():
            return [t.numpy() for t in stage.trunk(*map(torch.from_numpy, arrays))]

    def classifier(arrays: Sequence[Array]) -> list[Array]:
        with torch.inference_mode():
            return [stage.classifier(torch.from_numpy(arrays[-1])).numpy()]

    return trunk, classifier


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2, 2)])
def test_the_gather_graph_picks_rows_of_any_tensor(shape: tuple[int, ...]):
    array = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    (picked,) = session(gather_graph()).run(["y"], {"x": array, "rows": np.array([4, 0, 4])})

    np.testing.assert_array_equal(picked, array[[4, 0, 4]])


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
def test_the_concat_graph_joins_batches_of_any_tensor(shape: tuple[int, ...]):
    a = np.ones((2, *shape), dtype=np.float32)
    b = np.zeros((1, *shape), dtype=np.float32)

    (joined,) = session(concat_graph()).run(["y"], {"a": a, "b": b})

    np.testing.assert_array_equal(joined, np.concatenate([a, b]))


@EXPORTS
def test_tensors_are_called_what_they_are_told_to_be():
    example = (torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))

    graph = onnx_graph(
        Both(), example, input_names=["left", "right"], output_names=["sum", "positive"]
    )

    (total,) = session(graph).run(
        ["sum"], {"left": np.ones((7, 1, 2, 2), np.float32), "right": np.ones((7, 1, 2, 2), "f")}
    )
    assert total.shape == (7, 1, 2, 2)
    assert (total == 2).all()


@EXPORTS
def test_the_same_module_gives_the_same_file():
    example = (torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    names = {"input_names": ["left", "right"], "output_names": ["sum", "positive"]}

    first, second = (onnx_graph(Both(), example, **names) for _ in range(2))

    assert first == second


@EXPORTS
def test_a_tensor_without_a_name_is_refused():
    example = (torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))

    with pytest.raises(ExportRefused, match="asked for tensors"):
        onnx_graph(Both(), example, input_names=["left"], output_names=["sum", "positive"])


@EXPORTS
def test_a_batch_norm_that_could_not_be_folded_is_refused():
    with pytest.raises(ExportRefused, match="not folded"):
        onnx_graph(Normed(), (torch.zeros(2, 2, 2, 2),), input_names=["a"], output_names=["logits"])


def test_folding_leaves_no_batch_norm_and_the_same_numbers():
    network = MSDNet(SHAPE).eval()
    pixels = torch.randn(2, 3, 16, 16)

    folded = folded_copy(network)

    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        for found, expected in zip(folded(pixels), network(pixels), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("exit_layers", [(4, 6, 8, 10, 12, 14, 16), (1, 3, 6, 10, 15, 21), (3,)])
@pytest.mark.parametrize("num_scales", [1, 3, 4])
def test_every_plan_is_a_chain_of_stages(exit_layers: tuple[int, ...], num_scales: int):
    factors = (1, 2, 4, 4)[:num_scales]
    shape = replace(
        SHAPE,
        image_size=64,
        exit_layers=exit_layers,
        width_factors=factors,
        bottleneck_factors=factors,
    )
    plans = plan_stages(shape)

    check_chain(plans)

    assert all(
        output_names(plan, k)[-1] == f"s{k}_scale{num_scales - 1}" for k, plan in enumerate(plans)
    )


def test_stages_that_do_not_fit_together_are_refused():
    first, second = plan_stages(SHAPE)
    broken = replace(second, reads=second.reads[:1])

    with pytest.raises(ExportRefused, match="stage 1 reads"):
        check_chain((first, broken))


def test_a_classifier_that_does_not_read_the_coarsest_scale_is_refused():
    first, second = plan_stages(SHAPE)
    broken = replace(first, classifier_input=first.writes[0])

    with pytest.raises(ExportRefused, match="classifier 0 reads"):
        check_chain((broken, second))


def test_two_tensors_of_one_scale_would_share_a_name():
    first, _ = plan_stages(SHAPE)
    doubled = replace(first, writes=first.writes + first.writes[:1])

    with pytest.raises(ExportRefused, match="two tensors of one scale"):
        output_names(doubled, 0)


def test_parity_names_the_largest_deviation():
    network = MSDNet(SHAPE).eval()
    stages = msdnet_stages(network)
    inputs = np.random.default_rng(0).standard_normal((2, 3, 16, 16), dtype=np.float32)

    deviation = check_parity(network, stages, [eager(stage) for stage in stages], inputs)

    assert 0 <= deviation <= 1e-4


def test_an_export_that_computes_something_else_is_refused():
    network = MSDNet(SHAPE).eval()
    stages = msdnet_stages(network)
    (trunk, classifier), second = (eager(stage) for stage in stages)
    inputs = np.random.default_rng(0).standard_normal((2, 3, 16, 16), dtype=np.float32)

    def off(arrays: Sequence[Array]) -> list[Array]:
        return [logits + np.float32(2e-4) for logits in classifier(arrays)]

    with pytest.raises(ExportRefused, match="exit 0, 1 images: exported logits are off by 2"):
        check_parity(network, stages, [(trunk, off), second], inputs)


def test_a_trunk_that_returns_too_little_is_refused():
    stages = msdnet_stages(MSDNet(SHAPE).eval())
    (trunk, classifier), second = (eager(stage) for stage in stages)
    inputs = np.zeros((1, 3, 16, 16), dtype=np.float32)

    def short(arrays: Sequence[Array]) -> list[Array]:
        return trunk(arrays)[:1]

    with pytest.raises(ExportRefused, match="returns 1 tensors"):
        staged_logits(stages, [(short, classifier), second], inputs)
