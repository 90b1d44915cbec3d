"""A batch run on stored confidences: what the server would have done, without a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.policies.base import ExitStanding, WindowPolicy
from model_store.windows import BatchBudget


@dataclass(frozen=True, slots=True)
class Replay:
    """Where each image of a batch came to stand, and what all of them cost."""

    standings: tuple[ExitStanding, ...]  # by decoded index
    spent_macs: int

    @property
    def exit_indices(self) -> NDArray[np.int64]:
        """Exit each image has its answer from, shape ``(images,)``."""
        return np.array([standing.exit_index for standing in self.standings], dtype=np.int64)


def replay_batch(batch: BatchBudget, confidences: NDArray[np.float64]) -> Replay:
    """Run all windows of a batch that has not begun.

    Args:
        batch: Its budget; spent by this.
        confidences: Calibrated, shape ``(images, exits)``; row i is the batch's image i.
    """
    standings: dict[int, ExitStanding] = {}
    while window := batch.open_window():
        run_window(window.policy, confidences[list(window.images)])
        standings.update(zip(window.images, window.policy.exits(), strict=True))
    in_order = tuple(standings[image] for image in sorted(standings))
    return Replay(in_order, batch.spent_macs)


def run_window(policy: WindowPolicy, confidences: NDArray[np.float64]) -> None:
    """Advance a policy to its end.

    Args:
        policy: Not advanced yet.
        confidences: Of the window's images, shape ``(images, exits)``.
    """
    rows: Sequence[Sequence[float]] = confidences.tolist()
    steps = policy.advance({})
    while steps:
        steps = policy.advance(
            {
                image: rows[image][step.stage_index]
                for step in steps
                if step.classify
                for image in step.images
            }
        )
