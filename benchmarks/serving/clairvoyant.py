"""How much work each request of a trace can get at most, if all arrivals are known in advance.

What a schedule on n lanes may do is bounded by Σ_{[r_i, d_i] ⊆ [s, t]} w_i ≤ n·(t − s) for all
s < t; every schedule keeps these, preemptive or not, however a request is spread over the lanes.
The vectors w that keep them are a polymatroid, in which one vector, the fairest, maximises Σ f(w_i)
for *every* concave f at once (Fujishige 1980, "Lexicographically Optimal Base of a Polymatroid with
Respect to a Weight Vector"). Where deadlines come in the order of arrivals it is found in linear
time and without blocks: served in order, request i has the lanes from b_i to b_(i+1), with
r_i ≤ b_i and b_(i+1) ≤ d_i, and the fairest increments of b are those of the shortest path through
that tube.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_Point = tuple[int, float]  # (place among the borders, instant)


def fair_work_s(
    arrived_s: NDArray[np.float64], due_s: NDArray[np.float64], *, num_lanes: float
) -> NDArray[np.float64]:
    """Return the work of each request that maximises Σ f(w_i) for every concave, rising f.

    Args:
        arrived_s: r_i, shape ``(N,)``, ascending.
        due_s: d_i, shape ``(N,)``, ascending, not before the arrivals.
        num_lanes: n.

    Returns:
        w_i in lane-seconds, shape ``(N,)``.

    Raises:
        ValueError: Deadlines do not come in the order of arrivals.
    """
    _check_order(arrived_s, due_s)
    if not len(arrived_s):
        return np.empty(0)
    # Behind a gap with nobody there, the lanes start afresh.
    starts = np.flatnonzero(arrived_s[1:] > due_s[:-1]) + 1
    parts = [
        np.diff(_shortest_path(arrived_s[first:last], due_s[first:last]))
        for first, last in pairwise([0, *starts.tolist(), len(arrived_s)])
    ]
    work_s: NDArray[np.float64] = num_lanes * np.maximum(np.concatenate(parts), 0.0)
    return work_s


def _check_order(arrived_s: NDArray[np.float64], due_s: NDArray[np.float64]) -> None:
    is_ordered = bool((np.diff(arrived_s) >= 0).all() and (np.diff(due_s) >= 0).all())
    if not is_ordered or bool((due_s < arrived_s).any()):
        raise ValueError("deadlines must come in the order of arrivals, and after them")


def _shortest_path(
    arrived_s: NDArray[np.float64], due_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the borders b_0 … b_N of requests with no gap between them."""
    earliest = arrived_s.tolist()
    latest = due_s.tolist()
    path = _TautString((0, earliest[0]))
    for place in range(1, len(earliest)):
        path.pass_between(place, earliest[place], latest[place - 1])
    path.pass_between(len(earliest), latest[-1], latest[-1])
    places, instants = zip(*path.corners, strict=True)
    every = np.arange(len(earliest) + 1)
    borders = np.interp(every, [*places, len(earliest)], [*instants, latest[-1]])
    return np.asarray(borders, dtype=np.float64)


@dataclass(slots=True)
class _TautString:
    """The shortest path through a tube, as far as it is known. Mutable; for one path alone.

    Two chains start at the last corner: `above`, the greatest convex function below the tube's
    upper border, and `below`, the least concave one above its lower border. While there is room
    between their first edges the path may still go anywhere there; once there is none, the path
    follows the one that is in the way, as far as its first vertex.
    """

    origin: _Point
    corners: list[_Point] = field(init=False)
    above: deque[_Point] = field(init=False)
    below: deque[_Point] = field(init=False)

    def __post_init__(self) -> None:
        self.corners = [self.origin]
        self.above = deque([self.origin])
        self.below = deque([self.origin])

    def pass_between(self, place: int, lower: float, upper: float) -> None:
        """Take in the next opening of the tube."""
        self._extend_above((place, upper))
        self._extend_below((place, lower))

    def _extend_above(self, point: _Point) -> None:
        above, below = self.above, self.below
        while len(above) > 1 and _slope(above[-2], point) <= _slope(above[-2], above[-1]):
            above.pop()
        if len(above) == 1:
            while len(below) > 1 and _slope(below[0], point) < _slope(below[0], below[1]):
                below.popleft()
                self.corners.append(below[0])
            above[0] = below[0]
        above.append(point)

    def _extend_below(self, point: _Point) -> None:
        above, below = self.above, self.below
        while len(below) > 1 and _slope(below[-2], point) >= _slope(below[-2], below[-1]):
            below.pop()
        if len(below) == 1:
            while len(above) > 1 and _slope(above[0], point) > _slope(above[0], above[1]):
                above.popleft()
                self.corners.append(above[0])
            below[0] = above[0]
        below.append(point)


def _slope(start: _Point, end: _Point) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])
