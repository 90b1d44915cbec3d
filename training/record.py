"""How a training run went, epoch by epoch: `log.csv`, TensorBoard and a line on the terminal."""

import csv
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm  # type: ignore[import-untyped]  # its stubs are a package of their own


def record_epoch(
    folder: Path, accuracies: Sequence[float], *, epochs: float, step: int, elapsed_s: float
) -> None:
    """Append one row to the run's records.

    Args:
        folder: The run's; made if it is not there.
        accuracies: On the hold-out set, one an exit, in [0, 1].
        epochs: Passes over the training images so far.
        step: Steps so far.
        elapsed_s: Wall clock so far, all resumptions added up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row = {"epochs": f"{epochs:.3f}", "step": f"{step}", "elapsed_s": f"{elapsed_s:.0f}"}
    row |= {f"holdout_accuracy_{k}": f"{a:.4f}" for k, a in enumerate(accuracies)}
    _append(folder / "log.csv", row)
    with SummaryWriter(str(folder / "tensorboard")) as board:
        for k, accuracy in enumerate(accuracies):
            board.add_scalar(f"holdout_accuracy/exit_{k}", accuracy, step)
    tqdm.write(" ".join(f"{key}={value}" for key, value in row.items()))


def _append(path: Path, row: dict[str, str]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
