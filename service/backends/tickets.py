"""Tickets of stages that are over, one way or the other, when `submit` returns."""

from dataclasses import dataclass

from service.backends.base import StageOutput
from service.errors import BackendFailed


@dataclass(frozen=True, slots=True)
class Done:
    """A stage that ran."""

    output: StageOutput

    def result(self) -> StageOutput:
        """Return what the stage left."""
        return self.output


@dataclass(frozen=True, slots=True)
class Failed:
    """A stage that did not; whoever asks for its result is told why."""

    error: BackendFailed

    def result(self) -> StageOutput:
        """Raise what went wrong."""
        raise self.error
