"""What the engine asks of a runtime: run one stage on some rows, and keep the features meanwhile.

Features never pass through the engine. It holds opaque handles and says which rows of them go on;
where they lie (arrays, device memory) and how rows are picked is the backend's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

# Named tuples where elsewhere there would be dataclasses: keys are hashed several times in every
# decision, and rows are made by the image; tuples do both in C.


class ModelKey(NamedTuple):
    """One version of one model, as named on the wire."""

    name: str
    version: str  # "1"


class StageKey(NamedTuple):
    """One stage of one model; whatever waits under the same key may run together."""

    model: ModelKey
    stage_index: int


class FeatureHandle(Protocol):
    """Features of some images at one border, in the backend's own form.

    Memory is freed when the last reference goes; there is nothing to close.
    """

    @property
    def num_rows(self) -> int:
        """Number of images."""
        ...

    @property
    def feature_bytes(self) -> int:
        """Bytes that this handle keeps from being freed, all its rows together."""
        ...


class FeatureRows(NamedTuple):
    """Some rows of one handle, in the order in which they are wanted."""

    handle: FeatureHandle
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a stage left: features for the next one, and logits of the rows that were classified."""

    features: FeatureHandle  # row i is the i-th row of the parts, taken in order
    logits: NDArray[np.float32]  # (rows classified, classes), in the order asked for


class Ticket(Protocol):
    """A stage that was submitted."""

    def result(self) -> StageOutput:
        """Wait for the stage and return what it left.

        Raises:
            BackendFailed: The runtime raised, or what was submitted fits no stage of the backend.
        """
        ...


class StageBackend(Protocol):
    """Executes stages of the models it was built with; safe to call from several threads at once.

    Attributes:
        name: Of the runtime, for `/v1/models` and logs.
        device: The device that was really taken, ``"cpu"`` or ``"cuda:0"``.
        can_join: Whether `submit` takes more than one part; if not, batches are never merged.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - the class says it, here and below

    @property
    def device(self) -> str: ...  # noqa: D102

    @property
    def can_join(self) -> bool: ...  # noqa: D102

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in normalised pixels, as what stage 0 reads.

        Args:
            model: Whose stages will read them.
            inputs: Shape ``(B, 3, H, W)``, C-contiguous; not written to afterwards, as the
                handle may refer to it.

        Raises:
            BackendFailed: The model is unknown, or the shape is not its own.
        """
        ...

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Start one stage on the rows of all parts, one after another; never raises.

        On a CPU the stage has run when this returns. A single part that takes all rows of its
        handle in order is not copied.

        Args:
            stage: Which; every handle must have been left by the stage before it.
            parts: At least one, of at least one row together.
            classify: Rows of the output, from 0, that the classifier also runs on; empty runs
                the trunk alone.
        """
        ...

    def close(self) -> None:
        """Give the runtime's memory and threads back; the backend is not used afterwards."""
        ...


class StageSite(Protocol):
    """Where a stage is run: a backend, or one lane of it."""

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in pixels; see `StageBackend.put`."""
        ...

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Start a stage; see `StageBackend.submit`."""
        ...


class StageLane(Protocol):
    """Runs one stage at a time somewhere else, while its caller does something else.

    Belongs to whoever drives it; what was submitted is waited for by watching `fileno`.
    """

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Take in pixels; see `StageBackend.put`."""
        ...

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Start a stage and return at once; the one before it is over.

        Raises:
            BackendFailed: Nothing was started.
        """
        ...

    def fileno(self) -> int:
        """Return what can be read once the stage is over, or the lane gone; -1 where it is gone."""
        ...

    def waited_s(self) -> float:
        """Return for how long, in all, it was ready to run and had no core; 0 if unknown."""
        ...

    def revive(self) -> None:
        """Begin to start a lane that is gone; `fileno` can be read once that is over.

        Raises:
            BackendFailed: It cannot even be begun.
        """
        ...

    def take_up(self) -> None:
        """End what `revive` began.

        Raises:
            BackendFailed: The lane does not start.
        """
        ...


@runtime_checkable
class LanedBackend(StageBackend, Protocol):
    """A backend whose stages do not run in the thread that submits them."""

    @property
    def lanes(self) -> Sequence[StageLane]:
        """One for each batch that can run at once."""
        ...
