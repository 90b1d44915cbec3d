"""Channel arithmetic of a multi-scale DenseNet: the numbers its layers and exits are built from.

Nothing here builds a module; `network` does, and `cost` counts, from the same numbers. Layers are
counted from 1, as in the paper, with 0 for the seed column; scales from 0, the finest.

Source: Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification",
arXiv 1703.09844, with the details the paper leaves open (bottleneck widths,
where a transition sits, how growth splits between branches) as in the authors' released code.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Self


class Stem(Enum):
    """How the seed column's finest scale is made from pixels."""

    CIFAR = "cifar"  # 3x3, stride 1
    IMAGENET = "imagenet"  # 7x7, stride 2, then 3x3 max-pool, stride 2


@dataclass(frozen=True, slots=True)
class Branch:
    """A 1x1 convolution to the bottleneck, then a 3x3 one: channels in, between and out."""

    in_channels: int
    bottleneck_channels: int
    out_channels: int


@dataclass(frozen=True, slots=True)
class MSDNetShape:
    """All that fixes an MSDNet's size.

    A "unit" is what all scales' channels are multiples of: scale s holds
    ``units * width_factors[s]`` channels, with the same number of units at every scale of one
    layer.

    Raises:
        ValueError: The numbers contradict each other, or the images are too small to be classified
            at the coarsest scale.
    """

    stem: Stem
    image_size: int  # pixels, height and width
    num_classes: int
    seed_units: int  # nChannels of the reference
    growth_units: int  # growthRate of the reference
    width_factors: tuple[int, ...]  # grFactor: channels per unit, by scale
    bottleneck_factors: tuple[int, ...]  # bnFactor, by scale
    exit_layers: tuple[int, ...]  # layer each classifier sits on, ascending; the last is the depth
    classifier_channels: int | None = 128  # None: as many as the classifier reads
    reduction: float = 0.5  # share of the units that a transition keeps

    def __post_init__(self) -> None:
        if len(self.width_factors) != len(self.bottleneck_factors):
            raise ValueError(
                f"{len(self.width_factors)} width factors for "
                f"{len(self.bottleneck_factors)} bottleneck factors"
            )
        if not self.exit_layers or list(self.exit_layers) != sorted(set(self.exit_layers)):
            raise ValueError(f"exit layers must ascend, got {self.exit_layers}")
        if self.exit_layers[0] < 1:
            raise ValueError(f"an exit cannot sit before layer 1, got {self.exit_layers[0]}")
        if any(self.growth_units * factor % 2 for factor in self.width_factors[1:]):
            raise ValueError("coarser scales grow by halves: their growth must be even")
        if self.linear_features(0) == 0:
            raise ValueError(f"images of {self.image_size} pixels leave a classifier nothing")

    @classmethod
    def even(cls, *, base: int, step: int, num_exits: int, **rest: object) -> Self:
        """Build a shape whose exits sit on every `step`-th layer from `base`."""
        layers = tuple(base + step * i for i in range(num_exits))
        return cls(exit_layers=layers, **rest)  # type: ignore[arg-type]  # `rest` is cls's own fields

    @classmethod
    def linearly_growing(cls, *, num_exits: int, **rest: object) -> Self:
        """Build a shape whose k-th exit (from 1) sits on layer 1 + 2 + … + k: the batch setting."""
        layers = tuple(k * (k + 1) // 2 for k in range(1, num_exits + 1))
        return cls(exit_layers=layers, **rest)  # type: ignore[arg-type]  # `rest` is cls's own fields

    @property
    def num_layers(self) -> int:
        """Depth, the seed column not counted."""
        return self.exit_layers[-1]

    @property
    def num_scales(self) -> int:
        """Number of resolutions, S."""
        return len(self.width_factors)

    @property
    def interval(self) -> int:
        """Layers between two scale reductions: ceil(L / S)."""
        return -(-self.num_layers // self.num_scales)

    def finest_scale(self, layer: int) -> int:
        """Return the finest scale that `layer` puts out; the seed column puts out all."""
        return (layer - 1) // self.interval if layer > 0 else 0

    def has_transition(self, layer: int) -> bool:
        """Say whether channels are reduced right after `layer`: a later block's first layer."""
        return layer > self.interval and (layer - 1) % self.interval == 0

    def units(self, layer: int) -> int:
        """Return the units of every scale at `layer`, its transition (if any) applied."""
        units = self.seed_units
        for index in range(1, layer + 1):
            units += self.growth_units
            if self.has_transition(index):
                units = int(self.reduction * units)
        return units

    def channels(self, layer: int, scale_index: int) -> int:
        """Return the channels of a scale at `layer`, its transition (if any) applied."""
        return self.units(layer) * self.width_factors[scale_index]

    def layer_channels(self, layer: int, scale_index: int) -> int:
        """Return the channels of a scale at `layer` before a transition there."""
        units = self.units(layer - 1) + self.growth_units
        return units * self.width_factors[scale_index]

    def same_scale_branch(self, layer: int, scale_index: int) -> Branch:
        """Return the widths of the branch that stays on its scale."""
        growth = self.growth_units * self.width_factors[scale_index]
        halves = self.strided_branch(layer, scale_index) is not None
        return self._branch(layer, scale_index, growth // 2 if halves else growth)

    def strided_branch(self, layer: int, scale_index: int) -> Branch | None:
        """Return the widths of the branch from the next finer scale, None where there is none."""
        if scale_index - 1 < self.finest_scale(layer - 1):
            return None
        growth = self.growth_units * self.width_factors[scale_index]
        return self._branch(layer, scale_index - 1, growth // 2)

    def _branch(self, layer: int, from_scale: int, out_channels: int) -> Branch:
        in_channels = self.channels(layer - 1, from_scale)
        # The strided branch takes the finer scale's factor: widths follow what is read.
        bottleneck = min(in_channels, self.bottleneck_factors[from_scale] * out_channels)
        return Branch(in_channels, bottleneck, out_channels)

    def scale_size(self, scale_index: int) -> int:
        """Return a scale's height and width, in pixels."""
        size = self.image_size if self.stem is Stem.CIFAR else -(-self.image_size // 4)
        for _ in range(scale_index):
            size = -(-size // 2)
        return size

    def classifier_width(self, exit_index: int) -> int:
        """Return the channels of both convolutions of a classifier."""
        coarsest = self.num_scales - 1
        return self.classifier_channels or self.channels(self.exit_layers[exit_index], coarsest)

    def linear_features(self, exit_index: int) -> int:
        """Return what a classifier's linear layer reads: two strided convolutions, then a pool."""
        size = self.scale_size(self.num_scales - 1)
        half = -(-size // 2)
        pooled = -(-half // 2) // 2
        return self.classifier_width(exit_index) * pooled**2
