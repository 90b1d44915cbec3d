"""Wakes an epoll loop at an instant, to some microseconds; epoll's own time-out counts in ms."""

import ctypes
import os
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = 0o2004000
_ABSOLUTE: Final = 1
_NANOSECONDS: Final = 1_000_000_000
_NEVER_EARLY_NS: Final = 1_000  # above what a float loses of nanoseconds since boot


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class AlarmTimer:
    """A timer of the kernel as a file descriptor; readable once its instant has come.

    Registered edge-triggered, it need not be read: setting it anew re-arms it.

    Raises:
        OSError: The kernel has none to give.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self.fileno = int(self._library.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC))
        if self.fileno < 0:
            raise OSError(ctypes.get_errno(), "no timer to be had")
        self._spec = _TimerSpec()
        self._pointer = ctypes.byref(self._spec)

    def set(self, instant: float) -> None:
        """Wake at an instant of `time.monotonic`, never before it; at once if it has passed."""
        nanoseconds = max(int(instant * _NANOSECONDS), 0) + _NEVER_EARLY_NS
        self._spec.value_s, self._spec.value_ns = divmod(nanoseconds, _NANOSECONDS)
        self._library.timerfd_settime(self.fileno, _ABSOLUTE, self._pointer, None)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fileno)
