"""Who waits until nothing is in flight."""

import threading
from collections.abc import Callable

from service.engine.core import EngineCore


class WhenEmpty:
    """Calls back once nothing is in flight. Thread-safe.

    Args:
        core: What is in flight.
        lock: That guards it.
    """

    def __init__(self, core: EngineCore, lock: threading.Lock) -> None:
        self._core = core
        self._lock = lock
        self._callbacks: list[Callable[[], None]] = []

    def call(self, callback: Callable[[], None]) -> None:
        """Call back, once, from whichever thread finds nothing in flight."""
        with self._lock:
            self._callbacks.append(callback)
        self.look()

    def look(self) -> None:
        """Call those back who wait, if nothing is in flight.

        After settlements were posted: who waits must not wake before those settled here.
        """
        if not self._callbacks:
            return
        with self._lock:
            if not self._core.is_empty:
                return
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
