"""The one door to torchvision, whose wheels expect operators that a CPU build of torch lacks."""

from importlib import import_module
from types import ModuleType

import torch

_MISSING_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def torchvision_datasets() -> ModuleType:
    """Return `torchvision.datasets`, whichever build of torch is installed.

    PyPI's torchvision registers fake kernels for ``torchvision::nms`` at import; where its compiled
    library could not be loaded the operator does not exist and the import raises. Its schema alone
    is enough for `datasets`, which never calls it.
    """
    for name, schema in _MISSING_OPERATORS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)
    return import_module("torchvision.datasets")
