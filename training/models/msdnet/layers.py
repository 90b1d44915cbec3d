"""The few modules an MSDNet is made of. Every convolution is bias-free: batch norm follows."""

from torch import Tensor, cat, nn

from training.models.msdnet.shape import Branch


class ConvNormReLU(nn.Sequential):
    """Convolution, batch norm, ReLU; padded so that only the stride changes the size."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Bottleneck(nn.Sequential):
    """A branch of a layer: 1x1 to the bottleneck width, then 3x3."""

    def __init__(self, branch: Branch, *, stride: int) -> None:
        super().__init__(
            ConvNormReLU(branch.in_channels, branch.bottleneck_channels, kernel=1),
            ConvNormReLU(branch.bottleneck_channels, branch.out_channels, kernel=3, stride=stride),
        )


class ScaleLayer(nn.Module):
    """One scale of one layer: what was there, then the strided branch's output, then its own."""

    def __init__(self, same_scale: Branch, strided: Branch | None) -> None:
        super().__init__()
        self.same_scale = Bottleneck(same_scale, stride=1)
        self.strided = None if strided is None else Bottleneck(strided, stride=2)

    def forward(self, before: Tensor, finer: Tensor | None = None) -> Tensor:
        """Return ``(B, C + growth, H, W)`` from this scale and, where it is read, the finer one."""
        if self.strided is None or finer is None:
            return cat([before, self.same_scale(before)], dim=1)
        return cat([before, self.strided(finer), self.same_scale(before)], dim=1)


class ImageNetStem(nn.Sequential):
    """Pixels to the finest scale at a quarter of the resolution."""

    def __init__(self, out_channels: int) -> None:
        super().__init__(
            ConvNormReLU(3, out_channels, kernel=7, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1),
        )


class Classifier(nn.Module):
    """Logits from the coarsest scale."""

    def __init__(self, in_channels: int, width: int, *, linear_features: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormReLU(in_channels, width, kernel=3, stride=2),
            ConvNormReLU(width, width, kernel=3, stride=2),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )
        self.linear = nn.Linear(linear_features, classes)

    def forward(self, coarsest: Tensor) -> Tensor:
        """Return logits, shape ``(B, classes)``."""
        logits: Tensor = self.linear(self.features(coarsest))
        return logits
