import dataclasses

import pytest
import torch
from torch import nn

from training.models.msdnet.layers import ImageNetStem
from training.models.msdnet.network import MSDNet
from training.models.msdnet.shape import MSDNetShape, Stem
from training.recipe import load_recipe

SHAPE = load_recipe("cifar10_11exits_gpu").network.shape(10)


def test_exits_spread_evenly_sit_a_step_apart():
    fields = {f.name: getattr(SHAPE, f.name) for f in dataclasses.fields(SHAPE)}
    del fields["exit_layers"]

    even = MSDNetShape.even(base=4, step=2, num_exits=11, **fields)

    assert even == SHAPE


def test_exits_of_the_batch_setting_sit_ever_further_apart():
    fields = {f.name: getattr(SHAPE, f.name) for f in dataclasses.fields(SHAPE)}
    del fields["exit_layers"]

    growing = MSDNetShape.linearly_growing(num_exits=5, **fields)

    assert growing.exit_layers == (1, 3, 6, 10, 15)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"bottleneck_factors": (1, 2)}, "3 width factors for 2", id="factors"),
        pytest.param({"exit_layers": ()}, "must ascend", id="no-exit"),
        pytest.param({"exit_layers": (4, 4)}, "must ascend", id="exit-twice"),
        pytest.param({"exit_layers": (0, 4)}, "before layer 1", id="exit-on-the-seed"),
        pytest.param({"width_factors": (1, 1, 3), "growth_units": 5}, "even", id="odd-growth"),
        pytest.param({"image_size": 16}, "16 pixels", id="small-images"),
    ],
)
def test_numbers_that_no_network_can_have_are_refused(change: dict[str, object], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(SHAPE, **change)  # type: ignore[arg-type]  # wrong on purpose


def test_each_branch_of_the_cifar_net_has_the_reference_widths():
    def widths(scale: int) -> list[tuple[int, int] | None]:
        branches = SHAPE.strided_branch(5, scale), SHAPE.same_scale_branch(5, scale)
        return [None if b is None else (b.bottleneck_channels, b.out_channels) for b in branches]

    assert widths(0) == [None, (6, 6)]
    assert widths(1) == [(6, 6), (12, 6)]
    assert widths(2) == [(24, 12), (48, 12)]


def test_the_imagenet_stem_ends_at_a_quarter_of_the_resolution():
    stem = ImageNetStem(8).eval()

    with torch.inference_mode():
        features = stem(torch.zeros(1, 3, 50, 50))

    shape = dataclasses.replace(SHAPE, stem=Stem.IMAGENET, image_size=224)
    assert features.shape == (1, 8, 13, 13)
    assert [shape.scale_size(scale) for scale in range(3)] == [56, 28, 14]


def test_a_small_imagenet_network_gives_logits_at_every_exit():
    shape = MSDNetShape(
        stem=Stem.IMAGENET,
        image_size=70,
        num_classes=5,
        seed_units=2,
        growth_units=2,
        width_factors=(1, 2),
        bottleneck_factors=(1, 2),
        exit_layers=(1, 4),
        classifier_channels=None,
    )
    network = MSDNet(shape).eval()

    with torch.inference_mode():
        logits = network(torch.zeros(2, 3, 70, 70))

    assert [tuple(z.shape) for z in logits] == [(2, 5), (2, 5)]


def test_convolutions_begin_with_the_variance_of_he_et_al_by_fan_out():
    torch.manual_seed(0)
    network = MSDNet(SHAPE)
    kernels = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    kernel = max(kernels, key=lambda k: k.numel())

    spread = kernel.std().item()

    fan_out = kernel.shape[0] * kernel.shape[2] * kernel.shape[3]
    # 300,000 draws: their standard deviation is known to a thousandth or so.
    assert spread == pytest.approx((2 / fan_out) ** 0.5, rel=0.01)
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Linear)]
    assert len(biases) == 11
    assert not any(bias.any() for bias in biases)
