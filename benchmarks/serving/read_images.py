"""Reads CIFAR-10 and runs the default bundle over it, once.

`python -m benchmarks.serving.read_images --data DATA --output FILE`; see `images`.
"""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.offline import key_of, logits_by_exit
from benchmarks.serving.images import LabelledImages
from model_store.reader import open_bundle
from service.backends.onnx_runtime import OnnxRuntimeBackend
from training.data import load_splits

_BUNDLE = Path("model_store/bundles/cifar10-msdnet/1")
_BATCH_SIZE = 100


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds CIFAR-10")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    splits = load_splits(
        "cifar10", options.data, holdout_images=1, image_size=32, seed=0, device=torch.device("cpu")
    )
    every = torch.arange(len(splits.test.labels))
    pixels = splits.test.fetch(every).permute(0, 2, 3, 1).contiguous().numpy()
    bundle = open_bundle(_BUNDLE)
    backend = OnnxRuntimeBackend({key_of(bundle): bundle}, device="cpu", num_threads=2)
    logits = logits_by_exit(backend, bundle, pixels, batch_size=_BATCH_SIZE)
    LabelledImages(pixels, splits.test.labels.numpy(), logits).write(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
