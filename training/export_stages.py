"""A trained network as what a bundle holds: nameless stages, with names for what passes between.

The one place of the export that knows an architecture; another network needs another function here.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_store.manifest import INPUT_TENSOR
from training.models.msdnet.cost import classifier_costs, trunk_costs
from training.models.msdnet.lazy import StagePlan, plan_stages
from training.models.msdnet.network import MSDNet


class ExportRefused(Exception):
    """The network cannot be exported, or what was exported does not compute the same."""


@dataclass(frozen=True, slots=True)
class ExportStage:
    """One stage, ready to be traced; its classifier reads the last of its outputs."""

    trunk: nn.Module
    classifier: nn.Module
    inputs: tuple[str, ...]  # the outputs of the stage before, or the pixels
    outputs: tuple[str, ...]
    output_shapes: tuple[tuple[int, ...], ...]  # per image, without the batch axis
    example: tuple[Tensor, ...]  # what the trunk reads of some images
    classifier_example: Tensor
    trunk_macs: int  # per image
    classifier_macs: int


def msdnet_stages(network: MSDNet, *, num_examples: int = 2) -> tuple[ExportStage, ...]:
    """Cut an MSDNet up as it was planned, batch norms folded into the convolutions before them.

    Args:
        network: Left as it is; a copy in evaluation mode is cut.
        num_examples: Rows of the example inputs; 2 at least, or tracing takes the batch for a
            constant.

    Raises:
        ExportRefused: A stage does not read exactly what the one before it returns.
    """
    shape = network.shape
    plans = plan_stages(shape)
    folded = folded_copy(network)
    names = tuple(output_names(plan, stage_index) for stage_index, plan in enumerate(plans))
    check_chain(plans)
    macs = [
        (t.macs, c.macs) for t, c in zip(trunk_costs(shape), classifier_costs(shape), strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(num_examples, 3, shape.image_size, shape.image_size, generator=generator)
    example: tuple[Tensor, ...] = (pixels,)
    stages = []
    for k in range(len(plans)):
        with torch.inference_mode():
            returned = folded.stages[k](*example)
        stages.append(
            ExportStage(
                trunk=folded.stages[k],
                classifier=folded.classifiers[k],
                inputs=names[k - 1] if k else (INPUT_TENSOR,),
                outputs=names[k],
                output_shapes=tuple(tuple(t.shape[1:]) for t in returned),
                example=tuple(t.clone() for t in example),
                classifier_example=returned[-1].clone(),
                trunk_macs=macs[k][0],
                classifier_macs=macs[k][1],
            )
        )
        example = returned
    return tuple(stages)


def output_names(plan: StagePlan, stage_index: int) -> tuple[str, ...]:
    """Return the names of what a stage returns, finest scale first: ``s<stage>_scale<scale>``.

    Raises:
        ExportRefused: Two tensors of one scale cross the border, so that names would clash.
    """
    nodes = plan.writes or (plan.classifier_input,)
    names = tuple(f"s{stage_index}_scale{node.scale_index}" for node in nodes)
    if len(set(names)) < len(names):
        raise ExportRefused(f"stage {stage_index} returns two tensors of one scale: {nodes}")
    return names


def check_chain(plans: tuple[StagePlan, ...]) -> None:
    """Refuse plans whose stages cannot be run one after another, knowing only the border.

    Raises:
        ExportRefused: A stage reads what the one before does not return, or its classifier reads
            another tensor than the last it returns.
    """
    for stage_index, plan in enumerate(plans[1:], start=1):
        if plan.reads != plans[stage_index - 1].writes:
            raise ExportRefused(
                f"stage {stage_index} reads {plan.reads}, "
                f"the one before it returns {plans[stage_index - 1].writes}"
            )
    for stage_index, plan in enumerate(plans):
        if plan.writes and plan.writes[-1] != plan.classifier_input:
            raise ExportRefused(
                f"classifier {stage_index} reads {plan.classifier_input}, "
                f"its stage returns {plan.writes[-1]} last"
            )


def folded_copy(network: MSDNet) -> MSDNet:
    """Return a copy in evaluation mode without batch norms, on the CPU, in float32."""
    copy = deepcopy(network).cpu().float().eval()
    for module in list(copy.modules()):
        if isinstance(module, nn.Sequential):
            _fold_norms(module)
    return copy


def _fold_norms(sequence: nn.Sequential) -> None:
    for position in range(len(sequence) - 1):
        convolution, norm = sequence[position], sequence[position + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            sequence[position] = fuse_conv_bn_eval(convolution, norm)
            sequence[position + 1] = nn.Identity()
