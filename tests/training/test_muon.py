import pytest
import torch
from torch import Tensor, nn

from training.muon import Muon, orthogonalised


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((3, 16, 64), id="wide"),
        pytest.param((3, 64, 16), id="tall"),
        pytest.param((3, 12, 1 * 9 * 12), id="kernels"),
    ],
)
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]):
    orthogonal = orthogonalised(randn(*shape))

    values = torch.linalg.svdvals(orthogonal.float())
    # Three iterations of this polynomial bring what is not tiny into about 0.7 to 1.2.
    assert values.min().item() > 0.6
    assert values.max().item() < 1.3


def test_singular_vectors_stay_where_they_were():
    matrix = randn(1, 8, 32)

    product = orthogonalised(matrix)[0].float() @ matrix[0].T

    left, _, right = torch.linalg.svd(matrix[0], full_matrices=False)
    exact = (left @ right) @ matrix[0].T
    # In bfloat16, with singular values only near 1: the direction is what must agree.
    similarity = torch.cosine_similarity(product.flatten(), exact.flatten(), dim=0)
    assert similarity.item() > 0.98


def test_matrices_in_a_batch_are_made_orthogonal_one_by_one():
    matrices = randn(4, 6, 18)

    batched = orthogonalised(matrices)

    single = torch.cat([orthogonalised(m[None]) for m in matrices])
    # The order of sums may differ: a few units of bfloat16's last place, 2^-8.
    torch.testing.assert_close(batched.float(), single.float(), atol=0.03, rtol=0)


def test_a_tall_kernel_takes_larger_steps():
    wide, tall = step_sizes(randn(8, 8, 1, 1)), step_sizes(randn(32, 8, 1, 1))

    # √(rows / columns) = 2 over the singular values, of which both have eight.
    assert tall == pytest.approx(2 * wide, rel=0.2)


def step_sizes(gradient: Tensor) -> float:
    kernel = nn.Parameter(torch.zeros_like(gradient))
    kernel.grad = gradient
    Muon([kernel], lr=1.0, momentum=0.0, weight_decay=0.0).step()
    return float(kernel.detach().norm())


def test_steps_make_a_loss_small():
    kernel = nn.Parameter(randn(6, 4, 3, 3))
    goal = randn(6, 4, 3, 3, seed=1)
    optimizer = Muon([kernel], lr=0.3, momentum=0.6, weight_decay=0.0)
    losses = []

    for _ in range(30):
        loss = (kernel - goal).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0] / 4


def test_kernels_of_one_shape_step_as_they_would_alone():
    together = [nn.Parameter(torch.zeros(4, 3, 3, 3)) for _ in range(2)]
    alone = [nn.Parameter(torch.zeros(4, 3, 3, 3)) for _ in range(2)]
    for seed, pair in enumerate(zip(together, alone, strict=True)):
        for kernel in pair:
            kernel.grad = randn(4, 3, 3, 3, seed=seed)

    Muon(together, lr=1.0, momentum=0.5, weight_decay=0.0).step()
    for kernel in alone:
        Muon([kernel], lr=1.0, momentum=0.5, weight_decay=0.0).step()

    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=0.03, rtol=0)


def test_weights_shrink_by_rate_times_decay_where_the_gradient_is_nothing():
    kernel = nn.Parameter(torch.ones(2, 3, 1, 1))
    kernel.grad = torch.zeros_like(kernel)

    Muon([kernel], lr=0.5, momentum=0.6, weight_decay=0.1).step()

    torch.testing.assert_close(kernel.detach(), torch.full((2, 3, 1, 1), 0.95))


def test_a_kernel_without_a_gradient_stays_as_it_is():
    kernel = nn.Parameter(torch.ones(2, 3, 1, 1))
    optimizer = Muon([kernel], lr=0.5, momentum=0.6, weight_decay=0.1)

    loss = optimizer.step(lambda: 3.5)

    assert loss == 3.5
    assert kernel.eq(1).all()
