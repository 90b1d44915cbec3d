import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.augment import CropAndFlip, normalised


def varied(
    pixels: torch.Tensor, *, size: int, padding: int, epoch: int = 0, seed: int = 0
) -> torch.Tensor:
    vary = CropAndFlip(num_images=len(pixels), image_size=size, padding=padding, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    return vary(pixels, torch.arange(len(pixels)), epoch=epoch, draw=draw)


def random_pixels(count: int, *, height: int, width: int, seed: int) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def is_window_of(window: NDArray[np.uint8], padded: NDArray[np.uint8]) -> bool:
    size = window.shape[1]
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return bool((views == window[:, None, None]).all(axis=(0, 3, 4)).any())


@given(
    height=st.integers(8, 12),
    width=st.integers(8, 12),
    padding=st.integers(0, 3),  # more would let a mirrored window be one as well
    epoch=st.integers(0, 3),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=30)
def test_every_output_is_a_window_of_the_padded_image_mirrored_every_other_epoch(
    height: int, width: int, padding: int, epoch: int, seed: int
):
    pixels = random_pixels(6, height=height, width=width, seed=seed)
    border = ((0, 0), (padding, padding), (padding, padding))
    padded = [np.pad(image, border, mode="reflect") for image in pixels.numpy()]

    mirrored = []
    for turn in (epoch, epoch + 1):
        outputs = varied(pixels, size=8, padding=padding, epoch=turn, seed=seed).numpy()
        straight = [is_window_of(o, p) for o, p in zip(outputs, padded, strict=True)]
        turned = [is_window_of(o[:, :, ::-1], p) for o, p in zip(outputs, padded, strict=True)]
        assert [a != b for a, b in zip(straight, turned, strict=True)] == [True] * 6
        mirrored.append(turned)

    assert [not was for was in mirrored[0]] == mirrored[1]


def test_about_half_of_the_images_begin_mirrored():
    pixels = random_pixels(400, height=4, width=4, seed=0)

    same = varied(pixels, size=4, padding=0).eq(pixels).all(dim=3).all(dim=2).all(dim=1)

    # 400 fair coins: five standard deviations are 50.
    assert 150 < same.sum().item() < 250


def test_every_offset_is_cut_out_sooner_or_later():
    pixels = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6).repeat(300, 3, 1, 1)

    corners = varied(pixels, size=4, padding=0)[:, 0, 0].amin(dim=1)

    assert set(corners.tolist()) == {row * 6 + column for row in range(3) for column in range(3)}


def test_one_seed_varies_images_one_way():
    pixels = random_pixels(8, height=8, width=8, seed=0)

    one, same, other = (varied(pixels, size=8, padding=3, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_an_image_is_mirrored_by_its_own_index_wherever_it_sits_in_the_batch():
    pixels = random_pixels(8, height=8, width=8, seed=0)
    vary = CropAndFlip(num_images=8, image_size=8, padding=0, seed=0)
    order = torch.tensor([5, 2, 7])

    some = vary(pixels[order], order, epoch=0, draw=torch.Generator())

    every = vary(pixels, torch.arange(8), epoch=0, draw=torch.Generator())
    assert torch.equal(some, every[order])


def test_inputs_are_normalised_channel_by_channel():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)

    inputs = normalised(pixels, torch.tensor([0.5, 0.2, 0.0]), torch.tensor([0.5, 0.1, 2.0]))

    torch.testing.assert_close(inputs.flatten(), torch.tensor([-1.0, 0.0, 0.5]))
