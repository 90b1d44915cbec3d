"""The same work in as many threads as there will be lanes: start-up imitates a loaded server."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self, TypeVar

ResultT = TypeVar("ResultT")

_GATHERING_S: Final = 10.0  # for all threads to be there; takes that long only if there are none


class SideBySide:
    """Runs a function in all of its threads at once; a context manager that ends them.

    Args:
        num_threads: At least one; one is the caller's own.
    """

    def __init__(self, num_threads: int) -> None:
        self._gathering = threading.Barrier(num_threads, timeout=_GATHERING_S)
        self._pool = (
            ThreadPoolExecutor(num_threads, thread_name_prefix="side-by-side")
            if num_threads > 1
            else None
        )

    def run(self, work: Callable[[], ResultT]) -> list[ResultT]:
        """Return what the function returns in each thread; none begins before all are there.

        Raises:
            Exception: Whatever the function raises in one of them.
        """
        if self._pool is None:
            return [work()]
        calls = [self._pool.submit(self._together, work) for _ in range(self._gathering.parties)]
        return [call.result() for call in calls]

    def _together(self, work: Callable[[], ResultT]) -> ResultT:
        self._gathering.wait()
        return work()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
