"""The network as a chain of lazily evaluated stages: so it is trained, exported and served."""

from collections.abc import Sequence

from torch import Tensor, nn

from training.models.msdnet.layers import Classifier, ConvNormReLU, ImageNetStem, ScaleLayer
from training.models.msdnet.lazy import Node, StagePlan, inputs_of, plan_stages
from training.models.msdnet.shape import MSDNetShape, Stem


class Stage(nn.Module):
    """Computes what one exit needs and no earlier stage computed; the classifier is apart.

    Reads and returns one tensor per live scale, the finest first; the first stage reads pixels,
    ``(B, 3, H, W)``. The features its classifier reads are the last tensor returned.
    """

    def __init__(self, shape: MSDNetShape, plan: StagePlan) -> None:
        super().__init__()
        self._shape = shape
        self._plan = plan
        self.nodes = nn.ModuleDict({_key(n): _build(shape, n) for n in plan.compute})

    @property
    def num_inputs(self) -> int:
        """Number of feature tensors read; pixels count as one."""
        return max(1, len(self._plan.reads))

    @property
    def num_border_tensors(self) -> int:
        """Number of tensors handed to the next stage, 0 at the last."""
        return len(self._plan.writes)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Run the stage; the last stage returns only what its classifier reads."""
        known: dict[Node, Tensor] = dict(zip(self._plan.reads, features, strict=False))
        for node in self._plan.compute:
            sources = [known[n] for n in inputs_of(self._shape, node)] or list(features)
            known[node] = self.nodes[_key(node)](*sources)
        border = [known[n] for n in self._plan.writes] or [known[self._plan.classifier_input]]
        return tuple(border)


class MSDNet(nn.Module):
    """A multi-scale DenseNet with a classifier at the end of every stage.

    Source: arXiv 1703.09844. Initialised by He et al.'s fan-out rule, as the authors' original
    Lua code does (their PyTorch port's loop reaches no module).
    """

    def __init__(self, shape: MSDNetShape) -> None:
        super().__init__()
        self.shape = shape
        self.stages = nn.ModuleList(Stage(shape, plan) for plan in plan_stages(shape))
        self.classifiers = nn.ModuleList(
            _build_classifier(shape, k) for k in range(len(shape.exit_layers))
        )
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return every exit's logits, each ``(B, classes)``."""
        features: Sequence[Tensor] = (pixels,)
        logits = []
        for stage, classifier in zip(self.stages, self.classifiers, strict=True):
            features = stage(*features)
            logits.append(classifier(features[-1]))
        return logits


def _key(node: Node) -> str:
    kind = "transition" if node.is_transition else "layer"
    return f"{kind}{node.layer}_scale{node.scale_index}"


def _build(shape: MSDNetShape, node: Node) -> nn.Module:
    out_channels = shape.channels(node.layer, node.scale_index)
    if node.is_transition:
        before = shape.layer_channels(node.layer, node.scale_index)
        return ConvNormReLU(before, out_channels, kernel=1)
    if node.layer > 0:
        return ScaleLayer(
            shape.same_scale_branch(node.layer, node.scale_index),
            shape.strided_branch(node.layer, node.scale_index),
        )
    if node.scale_index > 0:
        finer = shape.channels(0, node.scale_index - 1)
        return ConvNormReLU(finer, out_channels, kernel=3, stride=2)
    if shape.stem is Stem.IMAGENET:
        return ImageNetStem(out_channels)
    return ConvNormReLU(3, out_channels, kernel=3)


def _build_classifier(shape: MSDNetShape, exit_index: int) -> Classifier:
    coarsest = shape.num_scales - 1
    return Classifier(
        shape.channels(shape.exit_layers[exit_index], coarsest),
        shape.classifier_width(exit_index),
        linear_features=shape.linear_features(exit_index),
        classes=shape.num_classes,
    )


def _initialise(module: nn.Module) -> None:
    match module:
        case nn.Conv2d():
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        case nn.Linear(bias=Tensor() as bias):
            nn.init.zeros_(bias)
        case _:
            pass
