"""The shortest deadline admitted lately, for the sake of the next request like it. Pure."""

import math
from collections import deque
from typing import Final

_REMEMBERED_S: Final = 10


class RecentDeadlines:
    """Remembers the shortest deadline of each of the last ten seconds. Mutable."""

    __slots__ = ("_shortest",)

    def __init__(self) -> None:
        self._shortest: deque[tuple[int, float]] = deque()  # a second, the shortest in it

    def note(self, deadline_s: float, now: float) -> None:
        """Remember that a request was admitted.

        Args:
            deadline_s: From its arrival.
            now: The present instant; never earlier than before.
        """
        second, shortest = int(now), self._shortest
        if shortest and shortest[-1][0] == second:
            if deadline_s < shortest[-1][1]:
                shortest[-1] = (second, deadline_s)
        else:
            self._forget(second)
            shortest.append((second, deadline_s))

    def shortest_s(self, now: float) -> float:
        """Return the shortest deadline; infinity where nobody had one."""
        self._forget(int(now))
        return min((shortest_s for _, shortest_s in self._shortest), default=math.inf)

    def _forget(self, second: int) -> None:
        while self._shortest and self._shortest[0][0] < second - _REMEMBERED_S:
            self._shortest.popleft()
