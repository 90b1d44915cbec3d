import math

import pytest
import torch

from training.losses import multi_exit_cross_entropy

EVEN = torch.zeros(2, 4)  # p = 1/4 for every class
SURE = torch.tensor([[0.0, math.log(3.0), -1e9, -1e9]] * 2)  # p = 1/4, 3/4, 0, 0


def test_losses_of_all_exits_are_added_up():
    loss = multi_exit_cross_entropy([EVEN, SURE], torch.tensor([1, 1]), [1.0, 1.0])

    assert loss.item() == pytest.approx(math.log(4) + math.log(4 / 3))


def test_an_exit_counts_by_its_weight():
    loss = multi_exit_cross_entropy([EVEN, SURE], torch.tensor([0, 1]), [0.0, 2.0])

    assert loss.item() == pytest.approx(math.log(4) + math.log(4 / 3))


def test_smoothing_spreads_a_share_of_the_target_over_all_classes():
    logits = torch.tensor([[math.log(3.0), 0.0]])

    loss = multi_exit_cross_entropy([logits], torch.tensor([0]), [1.0], label_smoothing=0.5)

    assert loss.item() == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_half_precision_logits_are_compared_in_full_precision():
    loss = multi_exit_cross_entropy([EVEN.bfloat16()], torch.tensor([1, 1]), [1.0])

    assert loss.dtype == torch.float32


def test_a_weight_too_few_is_refused():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        multi_exit_cross_entropy([EVEN, SURE], torch.tensor([0, 0]), [1.0])
