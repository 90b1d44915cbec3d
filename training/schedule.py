"""How far a training run has come, and what its learning rate is there."""

import math
from dataclasses import dataclass

from training.recipe import CosineSchedule, StepSchedule


def rate_factor(schedule: StepSchedule | CosineSchedule, progress: float) -> float:
    """Return what the peak learning rate is multiplied by.

    Args:
        schedule: The recipe's.
        progress: Share of the training that is done, in [0, 1].
    """
    if isinstance(schedule, StepSchedule):
        return schedule.factor ** sum(progress >= drop for drop in schedule.drops_at)
    if progress < schedule.warm_up:
        # Never exactly nothing: the first step should already move.
        return max(progress / schedule.warm_up, 1e-3)
    after = (progress - schedule.warm_up) / max(1 - schedule.warm_up, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(after, 1.0)))


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a run is: a number of steps, or seconds of wall clock; the other is None."""

    steps: int | None
    seconds: float | None

    def progress(self, *, step: int, elapsed_s: float) -> float:
        """Return the share done, in [0, 1]; at 1 the run is over."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        if self.seconds is None:
            raise ValueError("an extent needs steps or seconds")
        return min(1.0, elapsed_s / self.seconds)
