"""What ends a training run before its last step: the clock and the operator."""

import signal
import time
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Self


@dataclass(slots=True)
class Stopwatch:
    """Wall clock of a run over all its resumptions. Owned by the loop."""

    before_s: float
    _started_at: float = field(default_factory=time.monotonic)

    def elapsed_s(self) -> float:
        """Return seconds since the run first began, pauses left out."""
        return self.before_s + time.monotonic() - self._started_at


class StopSignal:
    """Remembers that the process was asked to stop, so that the loop ends between two steps.

    As a context: what the process did with SIGTERM and SIGINT before holds again afterwards.
    """

    def __init__(self) -> None:
        self.is_set = False
        names = (signal.SIGTERM, signal.SIGINT)
        self._before = {name: signal.getsignal(name) for name in names}

    def __enter__(self) -> Self:
        for name in self._before:
            signal.signal(name, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _remember(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_set = True
