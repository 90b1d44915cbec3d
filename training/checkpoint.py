"""Where a training run stands, on disk: written aside and renamed, read without running code."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

_NAME = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a run needs to go on as if it had not stopped."""

    recipe: dict[str, Any]  # as its TOML; a run goes on only under the recipe it began with
    data_digest: str
    num_classes: int
    class_names: list[str]
    step: int
    elapsed_s: float
    model: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor] | None  # of the moving average, where the recipe keeps one
    optimizers: list[dict[str, Any]]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """State of the network to be used: the moving average's where there is one."""
        return self.average if self.average is not None else self.model

    def write(self, run: Path) -> None:
        """Replace the run's checkpoint; an interrupted write leaves the old one whole."""
        run.mkdir(parents=True, exist_ok=True)
        aside = run / f".{_NAME}.partial"
        with aside.open("wb") as file:
            torch.save(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(run / _NAME)

    @classmethod
    def read(cls, run: Path, device: torch.device | str = "cpu") -> Self:
        """Return a run's checkpoint.

        Raises:
            FileNotFoundError: The run has none.
        """
        path = run / _NAME
        if not path.is_file():
            raise FileNotFoundError(f"{run} holds no {_NAME}: train first, or name another run")
        return cls(**torch.load(path, map_location=device, weights_only=True))

    @classmethod
    def exists(cls, run: Path) -> bool:
        """Say whether a run can be resumed."""
        return (run / _NAME).is_file()
