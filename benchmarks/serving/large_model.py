"""A network of ImageNet's size with the answers of a small one: real stage times, known labels.

`python -m benchmarks.serving.large_model --work FOLDER` exports the 20-layer preset
with seeded, untrained weights into FOLDER, by training's own export, and calibrates it as if it had
said what the default bundle says: `ReplayedBackend` has it say that.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch
from torch.optim.swa_utils import update_bn

from model_store.calibration import Calibration
from model_store.manifest import ImageInput, Provenance
from model_store.reader import Bundle, open_bundle
from training.export import Description, export_bundle
from training.models.msdnet.network import MSDNet
from training.recipe import load_recipe

REPLAYED_EXITS: Final = (0, 1, 2, 4, 6)  # of the default bundle, one for each of the preset's five
_NAME: Final = "imagenet-msdnet-replayed"
_RECIPE: Final = "imagenet_step4"
_DEFAULT_BUNDLE: Final = Path("model_store/bundles/cifar10-msdnet/1")
_SEED: Final = 0
_STATISTICS_IMAGES: Final = 16


def main() -> int:
    """Export the bundle; print its folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    root: Path = parser.parse_args().work
    sys.stdout.write(f"{export_replayed(root, open_bundle(_DEFAULT_BUNDLE))}\n")
    return 0


def export_replayed(root: Path, replayed: Bundle) -> Path:
    """Write the bundle.

    Args:
        root: Of the model store.
        replayed: Whose classes it knows and whose hold-out answers it is calibrated on.
    """
    recipe = load_recipe(_RECIPE)
    torch.manual_seed(_SEED)
    labels = replayed.manifest.labels
    network = MSDNet(recipe.network.shape(len(labels)))
    size, data = recipe.network.image_size, recipe.data
    # Without statistics features grow from layer to layer, and rounding with them.
    with torch.inference_mode():
        update_bn([torch.randn(_STATISTICS_IMAGES, 3, size, size)], network)
    description = Description(
        name=_NAME,
        version=1,
        labels=labels,
        image_input=ImageInput(height=size, width=size, channels=3, mean=data.mean, std=data.std),
        provenance=Provenance(
            recipe=recipe.model_dump(mode="json"),
            data_digest="",
            seed=_SEED,
            versions={"torch": torch.__version__},
            results={},
            created_at=datetime.now(UTC),
            note="untrained weights; its answers are replayed by a benchmark",
        ),
    )
    held_out = replayed.calibration
    logits = held_out.logits[:, list(REPLAYED_EXITS)]
    calibration = Calibration.build(logits, held_out.labels, _SEED)
    return export_bundle(network, description, calibration=calibration, root=root)


if __name__ == "__main__":
    sys.exit(main())
