"""The stages alone, in a loop: the least CPU that a server of them could take.

`python -m benchmarks.bare_loop` prints CPU-seconds an image, straight to the last exit. It is a
process of its own, so that its threads and caches are not the server's.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.offline import key_of
from model_store.preprocessing import normalise
from model_store.reader import open_bundle
from service.backends.base import FeatureRows, StageKey
from service.backends.onnx_runtime import OnnxRuntimeBackend

_WARM_UP_SHARE = 10  # a tenth more, first and unmeasured


def main() -> int:
    """Run the loop; print CPU-seconds an image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("model_store/bundles/cifar10-msdnet/1"))
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--images", type=int, required=True)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    key, image = key_of(bundle), bundle.manifest.input
    backend = OnnxRuntimeBackend({key: bundle}, device="cpu", num_threads=1)
    shape = (options.batch_size, image.height, image.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = tuple(range(options.batch_size))
    last = len(bundle.manifest.stages) - 1

    def run(num_images: int) -> None:
        for _ in range(0, num_images, options.batch_size):
            features = backend.put(key, normalise(pixels, mean=image.mean, std=image.std))
            for k in range(last + 1):
                parts = [FeatureRows(features, rows)]
                classify = rows if k == last else ()
                output = backend.submit(StageKey(key, k), parts, classify=classify).result()
                features = output.features

    run(options.images // _WARM_UP_SHARE)
    before_s = time.process_time()
    run(options.images)
    sys.stdout.write(f"{(time.process_time() - before_s) / options.images:.9f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
