"""What passes between a lane and those who give it work."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from service.engine.cohort import Settlement
from service.engine.stage_run import StageResult, StageRun


class Turn(NamedTuple):
    """What a lane does next: run a batch, end, or sleep."""

    run: StageRun | None
    is_over: bool  # there will never be anything to do
    sleep_s: float | None  # look again then, though nobody wakes it; None: sleep until woken
    settlements: Sequence[Settlement]  # to be told


class Lane(Protocol):
    """Runs one batch after another."""

    @property
    def index(self) -> int:
        """Which of the engine's lanes."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it takes batches."""
        ...

    def is_starved(self) -> bool:
        """Whether its stage takes so long because it gets no core, as far as can be known."""
        ...

    def start(self) -> None:
        """Begin to take turns, once."""
        ...

    def wake(self) -> None:
        """End the present sleep, or the next one; once for each sleep, under the lock."""
        ...

    def stop(self) -> None:
        """Return once it takes no turns any more; it was told that all is over."""
        ...


class Turns(Protocol):
    """What a lane asks between two batches; see `Lanes`."""

    def turn(self, lane: Lane, result: StageResult | None) -> Turn:
        """Take in how the last batch went and say what is next.

        A lane that is told neither to run nor to end sleeps from here on.
        """
        ...

    def after(self, turn: Turn) -> None:
        """Tell those whom a turn settled."""
        ...

    def oversleeps(self, lane: Lane) -> bool:
        """Let a lane look for itself that nobody woke; False where it was woken this instant."""
        ...

    def revived(self, lane: Lane) -> None:
        """Let a lane take batches again whose `is_alive` was false when it took its last turn."""
        ...

    def stopped(self, lane: Lane) -> None:
        """Take in that a lane ends, however that came."""
        ...
