"""Measurements as Markdown tables, ready for the README."""

from collections.abc import Iterable, Sequence

from training.budget_sweep import BudgetResult
from training.calibrate import CalibratedExit
from training.evaluate import Evaluation, ExitResult, Reliability


def evaluation_tables(evaluation: Evaluation) -> str:
    """Return the note (where there is one), the exits' table and the budgets'."""
    parts = [_exits_table(evaluation.exits)]
    if evaluation.sweep:
        parts.append(_budgets_table(evaluation))
    if evaluation.note is not None:
        parts.insert(0, f"{evaluation.note}.\n")
    return "\n".join(parts)


def calibration_table(exits: Iterable[CalibratedExit]) -> str:
    """Return temperatures and what they do to the images they were not fitted on."""
    rows = [
        [
            f"{exit_index}",
            f"{e.after.temperature:.3f}",
            *(f"{100 * x.ece:.2f}" for x in (e.before, e.after)),
            *(f"{x.nll:.4f}" for x in (e.before, e.after)),
        ]
        for exit_index, e in enumerate(exits)
    ]
    return _table(["exit", "T", "ECE at 1, %", "ECE at T, %", "NLL at 1", "NLL at T"], rows)


def _exits_table(exits: Sequence[ExitResult]) -> str:
    header = ["exit", "C_k, M MACs", "D_k, M MACs", "accuracy, %"]
    header += ["NLL", "ECE, %", "T", "NLL at T", "ECE at T, %"]
    rows = [
        [
            f"{e.exit_index}",
            _mega(e.cumulative_macs),
            _mega(e.direct_macs),
            f"{100 * e.accuracy:.2f}",
            f"{e.raw.nll:.4f}",
            f"{100 * e.raw.ece:.2f}",
            *_calibrated_cells(e.calibrated),
        ]
        for e in exits
    ]
    return _table(header, rows)


def _calibrated_cells(calibrated: Reliability | None) -> tuple[str, ...]:
    if calibrated is None:
        return "–", "–", "–"
    temperature = f"{calibrated.temperature:.3f}"
    return temperature, f"{calibrated.nll:.4f}", f"{100 * calibrated.ece:.2f}"


def _budgets_table(evaluation: Evaluation) -> str:
    policies = tuple(dict.fromkeys(r.policy for r in evaluation.sweep))
    header = ["budget, M MACs an image"]
    for policy in policies:
        header += [f"{policy.value}: accuracy, %", "spent, M"]
    header.append("one exit for all, %")
    rows = []
    for budget_macs in sorted({r.budget_macs for r in evaluation.sweep}):
        cells = [_mega(budget_macs / evaluation.num_images)]
        for result in (r for r in evaluation.sweep if r.budget_macs == budget_macs):
            cells += _spent_cells(result, evaluation.num_images)
        rows.append([*cells, f"{100 * _one_exit_accuracy(evaluation, budget_macs):.2f}"])
    return _table(header, rows)


def _spent_cells(result: BudgetResult, num_images: int) -> tuple[str, str]:
    return f"{100 * result.accuracy:.2f}", _mega(result.spent_macs / num_images)


def _one_exit_accuracy(evaluation: Evaluation, budget_macs: int) -> float:
    """Return what the budget buys unseen: the accuracy of the deepest exit it pays for all."""
    return [
        e.accuracy for e in evaluation.exits if e.direct_macs * evaluation.num_images <= budget_macs
    ][-1]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["--:"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _mega(macs: float) -> str:
    return f"{macs / 1e6:.2f}"
