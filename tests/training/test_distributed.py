import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.distributed import World

REPOSITORY = Path(__file__).parents[2]

# Each process learns from its half of a batch; together they must do what one process does.
OTHER_PROCESS = """
import torch
from training.distributed import World

torch.set_num_threads(1)
world = World.join("cpu")
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
model[1].running_mean += 1
batch = torch.arange(12, dtype=torch.float32).reshape(4, 3)
model[0](world.part(batch)).square().mean().backward()
world.average(model)
world.total(torch.tensor([2.0]))
assert world.agree(torch.tensor([101.0])).tolist() == [100.0]
assert not world.is_first
world.leave()
"""


@pytest.fixture
def other_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Process 1 of two; the test itself is process 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "WORLD_SIZE": "2"}
    for name, value in {**group, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    environment = {**os.environ, "RANK": "1", "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS], env=environment)
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_whole_batch(
    other_process: subprocess.Popen[bytes],
):
    torch.manual_seed(0)
    linear, norm = torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)
    batch = torch.arange(12, dtype=torch.float32).reshape(4, 3)
    whole = torch.autograd.grad(linear(batch).square().mean(), linear.weight)[0]

    world = World.join("cpu")
    torch.autograd.backward(linear(world.part(batch)).square().mean())
    world.average(torch.nn.Sequential(linear, norm))
    total = world.total(torch.tensor([1.0]))
    agreed = world.agree(torch.tensor([100.0]))
    world.leave()

    assert other_process.wait(timeout=20) == 0
    assert linear.weight.grad is not None
    torch.testing.assert_close(linear.weight.grad, whole)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0.5, 0.5]
    assert (total.item(), agreed.item()) == (3, 100)
    assert (world.rank, world.size, world.is_first) == (0, 2, True)


def test_a_process_alone_joins_no_group_and_changes_nothing():
    world = World.join("cpu")
    layer = torch.nn.Linear(2, 2)
    torch.autograd.backward(layer(torch.ones(1, 2)).sum())
    before = [p.grad.clone() for p in layer.parameters() if p.grad is not None]

    world.average(layer)
    world.leave()

    assert (world.rank, world.size, world.is_first) == (0, 1, True)
    after = [p.grad for p in layer.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert world.total(torch.tensor([2.0])).tolist() == [2.0]
    assert world.agree(torch.tensor([3.0])).tolist() == [3.0]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_processes_share_a_batch_out_whole_and_evenly(size: int):
    batch = torch.arange(13)

    parts = [World(rank, size, torch.device("cpu")).part(batch) for rank in range(size)]

    assert torch.equal(torch.cat(parts).sort().values, batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
