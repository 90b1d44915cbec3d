"""What a network achieves on its test set: exit by exit, and under budgets kept as by the server.

`tables` prints it, `reliability` has the measures, `budget_sweep` the replay.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_store.calibration import Calibration
from model_store.confidence import max_softmax
from model_store.costs import ExitCosts
from training.budget_sweep import BudgetResult, Sweep, sweep_budgets
from training.reliability import accuracy, expected_calibration_error, negative_log_likelihood

EVALUATION_FILE: Final = "evaluation.json"  # in a run's folder
_OFFICIAL_MD5: Final = "40351d587109b95175f43aff81a1287e"  # of CIFAR-10's test_batch
_REBUILT_MD5: Final = "21e736563def335f8d8f764f678dc993"  # of the copy rebuilt from public parts


class Record(BaseModel):
    """Written to a file, and read back by `export`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reliability(Record):
    """How far an exit's confidence can be believed at one temperature."""

    temperature: float
    nll: float  # nats
    ece: float  # in [0, 1], 15 bins


class ExitResult(Record):
    """One exit on the test set."""

    exit_index: int
    cumulative_macs: int  # C_k, per image
    direct_macs: int  # D_k, per image
    accuracy: float  # in [0, 1]
    raw: Reliability
    calibrated: Reliability | None  # None: no calibration was at hand


class Evaluation(Record):
    """All that was measured, and on what."""

    recipe: str
    step: int | None  # steps behind the weights; None for a bundle's
    data_digest: str
    num_images: int
    note: str | None  # what must be said wherever the accuracies are quoted
    exits: tuple[ExitResult, ...]
    window_size: int
    sweep: tuple[BudgetResult, ...]  # empty without a calibration


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a network and what belongs to it."""

    recipe: str
    step: int | None  # steps behind the weights; None for a bundle's
    data_digest: str
    costs: ExitCosts
    calibration: Calibration | None  # None: not calibrated, so no budget can be swept


def evaluate(
    subject: Subject,
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    sweep: Sweep,
    note: str | None,
) -> Evaluation:
    """Measure every exit on its own, and all of them together under budgets.

    Args:
        subject: Whose logits these are.
        logits: Of the test images, shape ``(images, exits, classes)``.
        labels: Shape ``(images,)``.
        sweep: Budgets to try on the test set as one batch.
        note: What must be said of the data.
    """
    calibration = subject.calibration
    temperatures = None if calibration is None else calibration.temperatures.tolist()
    budgets: tuple[BudgetResult, ...] = ()
    if calibration is not None:
        budgets = _swept(logits, labels, subject.costs, calibration, sweep=sweep)
    return Evaluation(
        recipe=subject.recipe,
        step=subject.step,
        data_digest=subject.data_digest,
        num_images=len(labels),
        note=note,
        exits=_exit_results(logits, labels, subject.costs, temperatures),
        window_size=sweep.window_size,
        sweep=budgets,
    )


def reliability(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float
) -> Reliability:
    """Measure one exit's ``(images, classes)`` logits at a temperature."""
    confidences = max_softmax(logits, temperature)
    is_right = logits.argmax(axis=1) == labels
    return Reliability(
        temperature=temperature,
        nll=negative_log_likelihood(logits, labels, temperature),
        ece=expected_calibration_error(confidences, is_right),
    )


def read_evaluation(run: Path, *, step: int) -> Evaluation | None:
    """Return a run's evaluation, None where it has none of the weights after `step`."""
    path = run / EVALUATION_FILE
    if not path.is_file():
        return None
    evaluation = Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    return evaluation if evaluation.step == step else None


def data_note(dataset: str, root: Path) -> str | None:
    """Return what must be said of a copy of CIFAR-10 that is not the official one.

    Args:
        dataset: As in the recipe.
        root: Folder that holds ``cifar-10-batches-py``.
    """
    path = root / "cifar-10-batches-py" / "test_batch"
    if dataset != "cifar10" or not path.is_file():
        return None
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    known = {
        _OFFICIAL_MD5: None,
        _REBUILT_MD5: "CIFAR-10, 23 of 10,000 test images JPEG stand-ins",
    }
    return known.get(digest, f"CIFAR-10, test_batch is not the official file (MD5 {digest})")


def _exit_results(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    costs: ExitCosts,
    temperatures: Sequence[float] | None,
) -> tuple[ExitResult, ...]:
    results = []
    for k in range(costs.num_exits):
        own = logits[:, k]
        calibrated = None if temperatures is None else reliability(own, labels, temperatures[k])
        results.append(
            ExitResult(
                exit_index=k,
                cumulative_macs=costs.cumulative_macs[k],
                direct_macs=costs.direct_macs[k],
                accuracy=accuracy(own, labels),
                raw=reliability(own, labels, 1.0),
                calibrated=calibrated,
            )
        )
    return tuple(results)


def _swept(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    costs: ExitCosts,
    calibration: Calibration,
    *,
    sweep: Sweep,
) -> tuple[BudgetResult, ...]:
    by_exit = [max_softmax(logits[:, k], float(t)) for k, t in enumerate(calibration.temperatures)]
    return sweep_budgets(
        sweep,
        costs,
        holdout=calibration.confidences(),
        confidences=np.stack(by_exit, axis=1),
        is_right=logits.argmax(axis=2) == labels[:, None],
    )
