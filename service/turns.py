"""Work that takes turns in a small pool of threads, so that none holds the others up.

A turn is as many items of one piece of work as fit into a few milliseconds. Work whose caller was
cancelled has no further turn.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from service.errors import Overloaded, RequestRejected, ShuttingDown

_TURN_S: Final = 0.01
_FIRST_GUESS_S: Final = 0.0015  # of an item: a photograph of 500 x 375
_NEWEST_WEIGHT: Final = 0.1  # of a turn in the running mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Turn(Generic[T]):
    """What came of the items of one turn."""

    outcomes: list[T | RequestRejected]
    elapsed_s: float


class TurnPool:
    """Threads and the bounded queue before them; owned by the event loop it is called from."""

    def __init__(
        self, *, num_threads: int, max_waiting: int, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._num_threads = num_threads
        self._max_waiting = max_waiting  # pieces of work, those having a turn included
        self._now = now
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._is_closed = False
        self._waiting = 0
        self._backlog = 0  # items that had no turn yet
        self._item_s = _FIRST_GUESS_S  # running mean of what one takes

    @property
    def waiting(self) -> int:
        """Pieces of work that are not done."""
        return self._waiting

    def backlog_s(self) -> float:
        """Return how long an item that came now would wait for its turn, and take."""
        if not self._waiting:
            return 0.0
        return (self._backlog + 1) * self._item_s / self._num_threads

    def retry_after_s(self) -> float:
        """Return when the present backlog will be done, by what items took so far."""
        return max(1, self._backlog) * self._item_s / self._num_threads

    async def run(self, count: int, item_at: Callable[[int], T]) -> tuple[T | RequestRejected, ...]:
        """Work through items in a thread, in order, and return what came of each.

        Args:
            count: How many there are.
            item_at: Does the item of an index; what it raises other than `RequestRejected` ends
                the work, and is raised here.

        Raises:
            Overloaded: Too much work waits already.
            ShuttingDown: The pool is closed.
        """
        outcomes: list[T | RequestRejected] = []
        loop = asyncio.get_running_loop()
        with self._place():
            self._backlog += count
            try:
                while len(outcomes) < count:
                    self._refuse_closed()
                    turn = await loop.run_in_executor(
                        self._threads, self._take_turn, len(outcomes), count, item_at
                    )
                    outcomes.extend(turn.outcomes)
                    self._learn(turn)
            finally:
                self._backlog -= count - len(outcomes)
        return tuple(outcomes)

    def close(self) -> None:
        """Take nothing more; turns that were given are still had, and then the threads end."""
        self._is_closed = True
        self._threads.shutdown(wait=False)

    def _take_turn(self, first: int, count: int, item_at: Callable[[int], T]) -> _Turn[T]:
        """Work from `first` on until the turn is over; at least one item. Runs in a thread."""
        outcomes: list[T | RequestRejected] = []
        began_at = self._now()
        elapsed_s = 0.0
        for index in range(first, count):
            try:
                outcomes.append(item_at(index))
            except RequestRejected as rejected:
                outcomes.append(rejected)
            elapsed_s = self._now() - began_at
            if elapsed_s >= _TURN_S:
                break
        return _Turn(outcomes, elapsed_s)

    def _learn(self, turn: _Turn[T]) -> None:
        done = len(turn.outcomes)
        self._backlog -= done
        self._item_s += _NEWEST_WEIGHT * (turn.elapsed_s / done - self._item_s)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold a place in the queue for as long as the work needs it."""
        self._refuse_closed()
        if self._waiting >= self._max_waiting:
            raise Overloaded(retry_after_s=self.retry_after_s())
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise ShuttingDown
