"""The one source of instants; a parameter, so that a test can run a busy second in no time."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the present instant to the engine and to whoever computes deadlines for it."""

    def now(self) -> float:
        """Return the present instant in seconds; only differences mean anything."""
        ...


class MonotonicClock:
    """The machine's steady clock, the one an event loop's timers run by."""

    def now(self) -> float:
        """Return seconds since an arbitrary start, unmoved by changes of the wall clock."""
        return time.monotonic()
