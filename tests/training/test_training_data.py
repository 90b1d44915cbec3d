from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import ArrayImages, Splits, load_splits
from training.vision import torchvision_datasets

CPU = torch.device("cpu")


def load_cifar(root: Path, *, holdout_images: int = 30, seed: int = 0) -> Splits:
    return load_splits(
        "cifar10", root, holdout_images=holdout_images, image_size=32, seed=seed, device=CPU
    )


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes, four images each to learn from and one to test on, of different shapes."""
    for part, count in (("train", 4), ("val", 1)):
        for value, name in ((40, "cat"), (200, "dog")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (20 + 4 * index, 16), (value, value, value + index))
                image.save(folder / f"{index}.png")
    return tmp_path


def load_folder(root: Path) -> Splits:
    return load_splits("folder", root, holdout_images=3, image_size=8, seed=0, device=CPU)


def test_cifar_is_read_through_torchvision_in_the_files_order(cifar_folder: Path):
    splits = load_cifar(cifar_folder)

    official = torchvision_datasets().CIFAR10
    assert issubclass(official, torch.utils.data.Dataset)
    assert splits.class_names == tuple(f"class-{i}" for i in range(10))
    assert splits.test.labels.tolist() == [i % 10 for i in range(20)]
    assert splits.test.fetch(torch.arange(20)).shape == (20, 3, 32, 32)
    assert splits.test.fetch(torch.arange(2)).dtype == torch.uint8


def test_held_out_images_are_none_of_those_learnt_from(cifar_folder: Path):
    splits = load_cifar(cifar_folder)

    learnt = rows(splits.train.fetch(torch.arange(70)))
    held_out = rows(splits.holdout.fetch(torch.arange(30)))
    assert (len(splits.train.labels), len(splits.holdout.labels)) == (70, 30)
    assert len(learnt | held_out) == 100


def test_a_seed_holds_out_the_same_images_every_time(cifar_folder: Path):
    one, same, other = (load_cifar(cifar_folder, seed=seed) for seed in (1, 1, 2))

    every = torch.arange(30)
    assert torch.equal(one.holdout.fetch(every), same.holdout.fetch(every))
    assert torch.equal(one.holdout.labels, same.holdout.labels)
    assert not torch.equal(one.holdout.fetch(every), other.holdout.fetch(every))


def test_held_out_images_come_as_they_are_every_time_they_are_fetched(cifar_folder: Path):
    splits = load_cifar(cifar_folder)
    everything = rows(load_cifar(cifar_folder, holdout_images=1).train.fetch(torch.arange(99)))

    held_out = splits.holdout.fetch(torch.arange(30))

    assert torch.equal(held_out, splits.holdout.fetch(torch.arange(30)))
    assert len(rows(held_out) & everything) >= 29


def test_the_digest_tells_data_apart_and_not_their_splits(cifar_folder: Path, image_folder: Path):
    digest = load_cifar(cifar_folder, seed=1).digest

    assert digest == load_cifar(cifar_folder, seed=2).digest
    assert digest != load_folder(image_folder).digest
    assert len(digest) == 64


def test_folders_of_images_are_scaled_to_the_shorter_side_and_cropped(image_folder: Path):
    splits = load_folder(image_folder)

    pixels = splits.test.fetch(torch.tensor([0, 1]))

    assert splits.class_names == ("cat", "dog")
    assert splits.test.labels.tolist() == [0, 1]
    assert len(splits.train.labels) == 5
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels.float().mean(dim=(1, 2, 3)).tolist() == [40, 200]


def test_a_wide_image_keeps_its_middle(tmp_path: Path):
    for part in ("train", "val"):
        (tmp_path / part / "only").mkdir(parents=True)
        pixels = np.zeros((8, 40, 3), np.uint8)
        pixels[:, 16:24] = 255
        Image.fromarray(pixels).save(tmp_path / part / "only" / "wide.png")
    splits = load_splits("folder", tmp_path, holdout_images=0, image_size=8, seed=0, device=CPU)

    fetched = splits.train.fetch(torch.tensor([0]))

    assert fetched.eq(255).all()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load_folder(tmp_path)


def test_images_in_memory_are_fetched_by_index():
    images = ArrayImages(torch.arange(12).reshape(3, 1, 2, 2).byte(), torch.tensor([5, 6, 7]))

    fetched = images.fetch(torch.tensor([2, 0]))

    assert fetched[:, 0, 0, 0].tolist() == [8, 0]


def rows(pixels: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in pixels}
