"""What the engine tells about itself. `service.metrics` listens; the engine knows no metric."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from service.backends.base import ModelKey, StageKey
from service.engine.request import ImageOutcome
from service.errors import BackendFailed, RequestRejected


class WasteCause(StrEnum):
    """Why executed work is in nobody's answer."""

    LEFT = "left"  # the caller had gone
    LATE = "late"  # begun, and the answer was due before it could be used
    FAILED = "failed"  # a stage raised, or gave logits that are not finite
    STOPPED = "stopped"  # the engine ended


class Observer(Protocol):
    """Hears of everything that can be counted.

    Called under the engine's lock by event loop and lanes alike, so it need not lock and must be
    quick: nothing else moves meanwhile.
    """

    def warmed_up(self, model: ModelKey, macs: int) -> None:
        """A model's stages were profiled; nobody is charged for that."""
        ...

    def admitted(self, model: ModelKey, num_images: int) -> None:
        """A cohort was let in, and waits for its first stage; `settled` or `abandoned` follows."""
        ...

    def refused(self, error: RequestRejected) -> None:
        """Admission said no."""
        ...

    def stage_finished(
        self, stage: StageKey, *, batch_size: int, num_classified: int, elapsed_s: float, macs: int
    ) -> None:
        """A batch ran; `macs` are those of its images together."""
        ...

    def stage_failed(
        self, stage: StageKey, *, batch_size: int, macs: int, error: BackendFailed
    ) -> None:
        """The backend gave a batch up; `macs` were begun for its images together."""
        ...

    def settled(self, model: ModelKey, outcomes: Sequence[ImageOutcome]) -> None:
        """A cohort got what its caller is told."""
        ...

    def abandoned(self, model: ModelKey, num_images: int) -> None:
        """The caller of a cohort went before it was settled."""
        ...

    def wasted(self, macs: int, cause: WasteCause) -> None:
        """Executed work turned out to be in nobody's answer."""
        ...


class SilentObserver:
    """Listens to nothing, where nobody counts."""

    def warmed_up(self, model: ModelKey, macs: int) -> None:
        """Ignore it."""

    def admitted(self, model: ModelKey, num_images: int) -> None:
        """Ignore it."""

    def refused(self, error: RequestRejected) -> None:
        """Ignore it."""

    def stage_finished(
        self, stage: StageKey, *, batch_size: int, num_classified: int, elapsed_s: float, macs: int
    ) -> None:
        """Ignore it."""

    def stage_failed(
        self, stage: StageKey, *, batch_size: int, macs: int, error: BackendFailed
    ) -> None:
        """Ignore it."""

    def settled(self, model: ModelKey, outcomes: Sequence[ImageOutcome]) -> None:
        """Ignore it."""

    def abandoned(self, model: ModelKey, num_images: int) -> None:
        """Ignore it."""

    def wasted(self, macs: int, cause: WasteCause) -> None:
        """Ignore it."""
