"""A lane with a thread of its own, which runs the stages itself."""

import contextlib
import os
import threading

from service.backends.base import StageBackend
from service.engine.lane_turns import Turns
from service.engine.stage_run import StageResult, StageRun, run_stage


class ThreadLane:
    """Drives the backend, one stage batch after another, on a thread of its own.

    Args:
        index: Which of the engine's lanes.
        backend: Runs the stages.
        turns: Whom it asks.
        niceness: By how much its thread stands back for the event loop, where the system allows.
    """

    def __init__(
        self,
        index: int,
        backend: StageBackend,
        turns: Turns,
        *,
        niceness: int,
    ) -> None:
        self.index = index
        self._backend = backend
        self._turns = turns
        self._niceness = niceness
        self._may_wake = threading.Lock()
        self._may_wake.acquire()
        self._thread = threading.Thread(target=self._run, name=f"engine-lane-{index}", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def is_starved(self) -> bool:
        """Whether it gets no core; nobody knows of a single thread."""
        return False

    def start(self) -> None:
        """Start the thread, once."""
        self._thread.start()

    def wake(self) -> None:
        """End the present sleep, or the next one; once for each sleep."""
        self._may_wake.release()

    def stop(self) -> None:
        """Wait for the thread to end; not for one's own, and not for one that never began."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        self._stand_back()
        try:
            result: StageResult | None = None
            while (run := self._next(result)) is not None:
                result = run_stage(self._backend, run)
        finally:
            # A defect ends the loop and shows as its exception; nobody is left waiting for it.
            self._turns.stopped(self)

    def _next(self, result: StageResult | None) -> StageRun | None:
        """Return the next batch, sleeping until there is one; None where the lane is to end."""
        while True:
            turn = self._turns.turn(self, result)
            self._turns.after(turn)
            if turn.run is not None or turn.is_over:
                return turn.run
            result = None
            if not self._sleep(turn.sleep_s) and not self._turns.oversleeps(self):
                self._sleep(None)  # woken this very instant: that was for the sleep just over

    def _sleep(self, timeout_s: float | None) -> bool:
        """Sleep until woken; False where nobody did in time."""
        return self._may_wake.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))

    def _stand_back(self) -> None:
        if self._niceness:
            # Of this thread alone: on Linux a thread has a niceness of its own.
            thread_id = threading.get_native_id()
            with contextlib.suppress(OSError):
                niceness = os.getpriority(os.PRIO_PROCESS, thread_id) + self._niceness
                os.setpriority(os.PRIO_PROCESS, thread_id, niceness)
