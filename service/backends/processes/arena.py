"""Memory for features between stages, which all lane processes see."""

import threading
from bisect import bisect_left, insort
from collections import deque

from service.backends.processes.forms import aligned
from service.errors import BackendFailed
from service.shared_block import SharedBlock


class Place:
    """Some bytes of an arena; free again with its last reference."""

    __slots__ = ("__weakref__", "_arena", "offset", "size_bytes")

    def __init__(self, arena: "Arena", offset: int, size_bytes: int) -> None:
        self.offset = offset
        self.size_bytes = size_bytes
        self._arena = arena

    def __del__(self) -> None:
        # Whatever thread lets go of it, even in the middle of `take`: no lock is taken here.
        self._arena.give_back(self.offset, self.size_bytes)


class Arena:
    """Hands out places of a shared block, the lowest that fits; thread-safe.

    The lowest, so that what was touched once is used again: pages that nobody ever needed take no
    memory, however large the block is.

    Args:
        size_bytes: Of the block.

    Raises:
        BackendFailed: The system gives no such block.
    """

    def __init__(self, size_bytes: int) -> None:
        try:
            self.block = SharedBlock.create(aligned(size_bytes))
        except OSError as error:
            raise BackendFailed(f"no memory for features between stages: {error}") from error
        self._lock = threading.Lock()
        self._free = [(0, self.block.size_bytes)]  # (begin, end), rising, with gaps between
        self._returned: deque[tuple[int, int]] = deque()  # (begin, end), still to be sorted in

    def take(self, size_bytes: int) -> Place:
        """Return a place of at least so many bytes.

        Raises:
            BackendFailed: There is none.
        """
        wanted = aligned(size_bytes)
        with self._lock:
            self._sort_in()
            for index, (begin, end) in enumerate(self._free):
                rest = begin + wanted
                if rest > end:
                    continue
                if rest == end:
                    del self._free[index]
                else:
                    self._free[index] = (rest, end)
                return Place(self, begin, wanted)
        raise BackendFailed(f"no room for {size_bytes} bytes of features between stages")

    def give_back(self, offset: int, size_bytes: int) -> None:
        """Take a place back; from any thread, at any moment."""
        self._returned.append((offset, offset + size_bytes))

    @property
    def free_bytes(self) -> int:
        """What is not taken."""
        with self._lock:
            self._sort_in()
            return sum(end - begin for begin, end in self._free)

    def _sort_in(self) -> None:
        free, returned = self._free, self._returned
        while returned:
            begin, end = returned.popleft()
            index = bisect_left(free, (begin, end))
            if index < len(free) and free[index][0] == end:
                end = free.pop(index)[1]
            if index and free[index - 1][1] == begin:
                begin = free.pop(index - 1)[0]
            insort(free, (begin, end))
