"""The lanes of an engine: how many, and of which kind."""

from dataclasses import dataclass

from service.backends.base import LanedBackend, StageBackend
from service.engine.lane import ThreadLane
from service.engine.lane_turns import Lane, Turns
from service.engine.loop_lane import LoopLane


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """How many lanes run, and how."""

    num_lanes: int = 1  # batches that run side by side
    niceness: int = 0  # by how much they stand back for the event loop
    fills_cores: bool = False  # whether they leave the event loop no core of its own


def lanes_of(backend: StageBackend, turns: Turns, options: LaneOptions) -> tuple[Lane, ...]:
    """Return lanes on the event loop where a backend has such, else lanes on threads."""
    if isinstance(backend, LanedBackend):
        sites = backend.lanes[: options.num_lanes]
        return tuple(LoopLane(index, site, turns) for index, site in enumerate(sites))
    return tuple(
        ThreadLane(index, backend, turns, niceness=options.niceness)
        for index in range(options.num_lanes)
    )
