"""What a backend around another one needs where that one's lanes are driven by the event loop."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    LanedBackend,
    ModelKey,
    StageBackend,
    StageKey,
    StageLane,
    StageSite,
    Ticket,
)


class Wrapper(StageBackend, Protocol):
    """A backend that does something of its own, and has another one or a lane of it run stages."""

    def submit_to(
        self,
        site: StageSite,
        stage: StageKey,
        parts: Sequence[FeatureRows],
        classify: Sequence[int],
    ) -> Ticket:
        """Start a stage there."""
        ...


class WrappedLane:
    """One lane of the wrapped backend.

    Args:
        wrapper: What is around it.
        lane: Runs the stages.
    """

    def __init__(self, wrapper: Wrapper, lane: StageLane) -> None:
        self._wrapper = wrapper
        self._lane = lane
        self.fileno = lane.fileno
        self.waited_s = lane.waited_s
        self.revive = lane.revive
        self.take_up = lane.take_up

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in pixels; see `StageLane.put`."""
        return self._wrapper.put(model, inputs)

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Start a stage; see `StageLane.submit`."""
        return self._wrapper.submit_to(self._lane, stage, parts, classify)


class WithLanes:
    """A wrapper whose lanes are driven like those of the backend that it wraps.

    Args:
        wrapper: What is around it.
        lanes: Of the wrapped backend.
    """

    def __init__(self, wrapper: Wrapper, lanes: Sequence[StageLane]) -> None:
        self.name = wrapper.name
        self.device = wrapper.device
        self.can_join = wrapper.can_join
        self.put = wrapper.put
        self.submit = wrapper.submit
        self.close = wrapper.close
        self.lanes = tuple(WrappedLane(wrapper, lane) for lane in lanes)


def wrapped(wrapper: Wrapper, backend: StageBackend) -> StageBackend:
    """Return a wrapper, with lanes where the backend that it wraps has any."""
    if isinstance(backend, LanedBackend):
        return WithLanes(wrapper, backend.lanes)
    return wrapper
