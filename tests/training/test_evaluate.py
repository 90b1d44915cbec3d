from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.calibration import Calibration
from model_store.costs import ExitCosts
from model_store.policies.choose import PolicyName
from training.budget_sweep import Sweep
from training.evaluate import Evaluation, Subject, data_note, evaluate
from training.tables import evaluation_tables

COSTS = ExitCosts(trunk_macs=(8, 12, 17), classifier_macs=(2, 3, 3))
NUM_IMAGES = 300


def draw_logits(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits of three exits, each better than the one before it, and labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 4, NUM_IMAGES)
    truth = np.eye(4)[labels][:, None, :]
    skill = np.array([1.0, 2.0, 4.0])[:, None]
    logits = draw.normal(size=(NUM_IMAGES, 3, 4)) + skill * truth
    return logits.astype(np.float32), labels.astype(np.int64)


def make_subject(*, calibrated: bool = True) -> Subject:
    calibration = Calibration.build(*draw_logits(1), seed=0) if calibrated else None
    return Subject("tiny", 7, "0" * 64, COSTS, calibration)


def make_evaluation(
    *, calibrated: bool = True, note: str | None = None, num_budgets: int = 5
) -> Evaluation:
    logits, labels = draw_logits(2)
    sweep = Sweep(num_budgets=num_budgets, window_size=64)
    return evaluate(make_subject(calibrated=calibrated), logits, labels, sweep=sweep, note=note)


def test_every_exit_is_measured_at_its_own_prices():
    logits, labels = draw_logits(2)

    evaluation = make_evaluation()

    expected = [float((logits[:, k].argmax(axis=1) == labels).mean()) for k in range(3)]
    assert [e.accuracy for e in evaluation.exits] == expected
    assert [e.cumulative_macs for e in evaluation.exits] == [10, 25, 45]
    assert [e.direct_macs for e in evaluation.exits] == [10, 23, 40]
    assert [e.exit_index for e in evaluation.exits] == [0, 1, 2]


def test_a_fitted_temperature_makes_the_test_labels_likelier():
    evaluation = make_evaluation()

    for result in evaluation.exits:
        assert result.calibrated is not None
        assert result.raw.temperature == 1
        assert result.calibrated.nll < result.raw.nll


def test_budgets_run_from_the_first_exit_of_all_images_to_the_last():
    budgets = Sweep(num_budgets=12).budgets(COSTS, 10_000)

    assert len(budgets) == 12
    assert (budgets[0], budgets[-1]) == (10_000 * 10, 10_000 * 40)


def test_a_network_with_one_exit_has_one_budget():
    budgets = Sweep().budgets(ExitCosts((9,), (1,)), 10)

    assert budgets == (100,)


@pytest.mark.parametrize("policy", PolicyName)
def test_a_sweep_keeps_every_budget_and_ends_at_the_last_exits_accuracy(policy: PolicyName):
    evaluation = make_evaluation()

    results = [r for r in evaluation.sweep if r.policy is policy]

    assert len(results) == 5
    assert all(r.spent_macs <= r.budget_macs for r in results)
    assert all(sum(r.exit_counts) == NUM_IMAGES for r in results)
    assert results[0].exit_counts == (NUM_IMAGES, 0, 0)
    assert results[0].accuracy == evaluation.exits[0].accuracy
    assert results[-1].exit_counts == (0, 0, NUM_IMAGES)
    assert results[-1].accuracy == evaluation.exits[-1].accuracy


def test_deciding_by_confidence_beats_one_exit_for_all_at_the_same_price():
    evaluation = make_evaluation(num_budgets=7)

    for result in evaluation.sweep[2:6]:
        affordable = [
            e for e in evaluation.exits if e.direct_macs * NUM_IMAGES <= result.budget_macs
        ]
        assert result.accuracy > affordable[-1].accuracy


def test_without_a_calibration_there_are_no_budgets():
    evaluation = make_evaluation(calibrated=False)

    assert evaluation.sweep == ()
    assert all(e.calibrated is None for e in evaluation.exits)


def test_an_evaluation_is_read_as_it_was_written():
    evaluation = make_evaluation(note="a note")

    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation


def test_tables_are_markdown_with_a_row_an_exit_and_a_row_a_budget():
    evaluation = make_evaluation(note="23 stand-ins")

    text = evaluation_tables(evaluation)

    note, exits, budgets = text.split("\n\n")
    assert note == "23 stand-ins."
    for table, num_rows in ((exits, 3), (budgets, 5)):
        lines = table.strip().splitlines()
        assert len(lines) == 2 + num_rows
        assert len({line.count("|") for line in lines}) == 1
    first = evaluation.exits[0]
    assert f"| {100 * first.accuracy:.2f} | {first.raw.nll:.4f} |" in exits
    assert "geometric: accuracy, %" in budgets
    assert "topk: accuracy, %" in budgets


def test_tables_without_a_calibration_leave_its_columns_empty():
    text = evaluation_tables(make_evaluation(calibrated=False))

    assert text.count("| – | – | – |") == 3
    assert "budget" not in text


def test_a_table_of_budgets_shows_what_one_exit_for_all_would_give():
    evaluation = make_evaluation()

    last_row = evaluation_tables(evaluation).strip().splitlines()[-1]

    assert last_row.endswith(f"| {100 * evaluation.exits[-1].accuracy:.2f} |")


def test_a_copy_of_cifar10_that_is_not_the_official_one_is_noted(cifar_folder: Path):
    note = data_note("cifar10", cifar_folder)

    assert note is not None
    assert "not the official file" in note


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "folder"])
def test_nothing_is_noted_of_data_that_is_not_there_or_not_cifar10(dataset: str, tmp_path: Path):
    assert data_note(dataset, tmp_path) is None
