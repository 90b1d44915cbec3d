"""A network small enough to be trained within a test, and data small enough to be made by one."""

import pickle  # noqa: TID251 - the format of CIFAR's own files
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data import ArrayImages, Splits, Subset
from training.recipe import Recipe

NUM_CLASSES = 3


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Two exits, two scales, 16x16 pixels; two epochs of three steps, in full precision."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "network": {
                "stem": "cifar",
                "image_size": 16,
                "seed_units": 4,
                "growth_units": 2,
                "width_factors": [1, 2],
                "bottleneck_factors": [1, 2],
                "exit_layers": [1, 3],
                "classifier_channels": 8,
            },
            "data": {
                "dataset": "cifar10",
                "holdout_images": 20,
                "padding": 2,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
            },
            "muon": {},
            "sgd": {"rate": 0.05},
            "schedule": {"kind": "cosine"},
            "batch_size": 20,
            "epochs": 2,
            "ema_decay": 0.9,
            "bf16": False,
            "compiled": False,
        }
    )


@pytest.fixture
def tiny_splits() -> Splits:
    """60 images to learn from, 20 held out, 30 to test on; brightness tells the classes apart."""
    draw = np.random.default_rng(0)

    def images(count: int) -> ArrayImages:
        labels = draw.integers(0, NUM_CLASSES, count)
        pixels = draw.integers(0, 85, (count, 3, 16, 16)) + 85 * labels[:, None, None, None]
        return ArrayImages(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels))

    learnt = images(80)
    return Splits(
        train=Subset(learnt, torch.arange(60)),
        holdout=Subset(learnt, torch.arange(60, 80)),
        test=images(30),
        class_names=("dark", "grey", "bright"),
        digest="0" * 64,
    )


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the official one, with 20 images a file."""
    root = tmp_path_factory.mktemp("cifar")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {
            "data": draw.integers(0, 256, (20, 3072), dtype=np.uint8),
            "labels": (np.arange(20) % 10).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content))
    names = [f"class-{i}" for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    return root
