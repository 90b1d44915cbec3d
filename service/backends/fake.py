"""A backend that computes nothing: what every image answers at every exit is written in advance.

For tests of whatever drives a backend, and for measuring the server without its network. An image
is known by a number, which tests encode in its first pixel value (`numbered_images`).
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageKey,
    StageOutput,
    Ticket,
)
from service.backends.requests import check_inputs, check_stage, model_of, select_rows
from service.backends.selection import select
from service.backends.tickets import Done, Failed
from service.errors import BackendFailed

_CALLS_KEPT = 10_000
_BYTES_AN_IMAGE = 8  # a number, whatever the stage


def numbered_images(
    numbers: Sequence[int], *, shape: tuple[int, ...] = (3, 2, 2)
) -> NDArray[np.float32]:
    """Return inputs, ``(B, *shape)``, that a `FakeBackend` recognises by these numbers."""
    inputs = np.zeros((len(numbers), *shape), dtype=np.float32)
    inputs.reshape(len(numbers), -1)[:, 0] = numbers
    return inputs


def first_value(image: NDArray[np.float32]) -> int:
    """Return the number that `numbered_images` encoded in an image ``(3, H, W)``."""
    return round(float(image.flat[0]))


@dataclass(frozen=True, slots=True)
class FakeModel:
    """What a scripted network answers: at temperature 1 its max-softmax is the scripted number.

    Attributes:
        confidences: By exit, in [1 / num_classes, 1); NaN makes the logits NaN.
        confidences_by_image: Of images that differ, by number.
        label_by_image: Which class wins; an image's number modulo the classes where not said.
        image_shape: Of what stage 0 reads; None takes any.
        number_of: Which number an image, ``(3, H, W)``, has.
    """

    confidences: tuple[float, ...]
    confidences_by_image: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    label_by_image: Mapping[int, int] = field(default_factory=dict)
    num_classes: int = 10
    image_shape: tuple[int, ...] | None = None
    number_of: Callable[[NDArray[np.float32]], int] = first_value

    @property
    def num_stages(self) -> int:
        """K, one for each scripted confidence."""
        return len(self.confidences)

    def logits(self, image: int, exit_index: int) -> NDArray[np.float32]:
        """Return what the classifier says of an image, shape ``(classes,)``."""
        confidence = self.confidences_by_image.get(image, self.confidences)[exit_index]
        label = self.label_by_image.get(image, image % self.num_classes)
        row = np.zeros(self.num_classes, dtype=np.float32)
        # p = 1 / (1 + (n - 1) e^-z), solved for z.
        row[label] = np.log(confidence * (self.num_classes - 1)) - np.log1p(-confidence)
        return row


@dataclass(frozen=True, slots=True)
class StageCall:
    """One call of `submit` that was not refused."""

    stage: StageKey
    images: tuple[int, ...]  # numbers, in row order
    classify: tuple[int, ...]  # rows, not numbers
    num_parts: int
    call_index: int  # among all calls of this backend, from 0


StageHook = Callable[[StageCall], None]
"""Called in the lane's thread in place of the computation; may advance a virtual clock, wait for
an event, or raise `BackendFailed`."""


@dataclass(frozen=True, slots=True)
class FailAt:
    """A hook that fails a stage: always, or if one of some images is in the batch."""

    stage_index: int
    images: frozenset[int] | None = None  # None: whichever they are

    def __call__(self, call: StageCall) -> None:
        """Raise `BackendFailed` where the script says so."""
        if call.stage.stage_index != self.stage_index:
            return
        if self.images is None or not self.images.isdisjoint(call.images):
            raise BackendFailed(f"stage {self.stage_index} fails, as scripted")


@dataclass(frozen=True, slots=True)
class Gate:
    """A hook that holds a stage until a test lets it go.

    Attributes:
        entered: Set when a lane has arrived; wait for it before looking.
        opened: Set it to let the lane, and all later ones, through.
    """

    stage_index: int
    limit_s: float = 10.0  # a forgotten gate fails the stage rather than hang the test
    entered: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, call: StageCall) -> None:
        """Wait at the scripted stage until the gate is opened."""
        if call.stage.stage_index != self.stage_index:
            return
        self.entered.set()
        if not self.opened.wait(self.limit_s):
            raise BackendFailed(f"gate of stage {self.stage_index} stayed shut {self.limit_s} s")


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _FakeFeatures:
    model: ModelKey
    next_stage_index: int
    images: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return len(self.images)

    @property
    def feature_bytes(self) -> int:
        return _BYTES_AN_IMAGE * len(self.images)


class FakeBackend:
    """Answers from a script, in no time unless a hook takes some.

    Args:
        models: Scripts by model.
        hooks: Called in order for each stage; the first that raises fails it.
        can_join: Whether more than one part is taken.

    Attributes:
        calls: The latest calls, oldest first, failed ones included; at most 10 000 are kept.
        is_closed: Whether `close` was called.
    """

    name = "fake"
    device = "cpu"

    def __init__(
        self,
        models: Mapping[ModelKey, FakeModel],
        *,
        hooks: Sequence[StageHook] = (),
        can_join: bool = True,
    ) -> None:
        self.can_join = can_join
        self.calls: deque[StageCall] = deque(maxlen=_CALLS_KEPT)
        self.is_closed = False
        self._models = dict(models)
        self._hooks = tuple(hooks)
        self._num_calls = 0
        self._lock = threading.Lock()

    def put(self, model: ModelKey, inputs: NDArray[np.float32]) -> FeatureHandle:
        """Remember the images' numbers; see `StageBackend.put`."""
        script = model_of(self._models, model)
        check_inputs(inputs, image_shape=script.image_shape or inputs.shape[1:])
        return _FakeFeatures(model, 0, tuple(script.number_of(image) for image in inputs))

    def submit(
        self, stage: StageKey, parts: Sequence[FeatureRows], *, classify: Sequence[int]
    ) -> Ticket:
        """Look the answers up; see `StageBackend.submit`."""
        try:
            return Done(self._run(stage, parts, classify))
        except BackendFailed as error:
            return Failed(error)

    def close(self) -> None:
        """Forget every script, as a runtime would its models."""
        self.is_closed = True
        self._models.clear()

    def _run(
        self, stage: StageKey, parts: Sequence[FeatureRows], classify: Sequence[int]
    ) -> StageOutput:
        script = model_of(self._models, stage.model)
        check_stage(stage, num_stages=script.num_stages)
        selections = select_rows(parts)
        if len(parts) > 1 and not self.can_join:
            raise BackendFailed(f"{len(parts)} parts, and this backend cannot join")
        numbers = [
            [_images_of(part, stage)[row] for row in selection.rows]
            for part, selection in zip(parts, selections, strict=True)
        ]
        images = tuple(chain.from_iterable(numbers))
        classified = select(classify, of=len(images)).rows
        call = self._record(stage, images, classified, num_parts=len(parts))
        for hook in self._hooks:
            hook(call)
        logits = [script.logits(images[row], stage.stage_index) for row in classified]
        empty = np.empty((0, script.num_classes), dtype=np.float32)
        features = _FakeFeatures(stage.model, stage.stage_index + 1, images)
        return StageOutput(features, np.stack(logits) if logits else empty)

    def _record(
        self, stage: StageKey, images: tuple[int, ...], classify: tuple[int, ...], *, num_parts: int
    ) -> StageCall:
        with self._lock:
            call = StageCall(stage, images, classify, num_parts, self._num_calls)
            self._num_calls += 1
            self.calls.append(call)
        return call


def _images_of(part: FeatureRows, stage: StageKey) -> tuple[int, ...]:
    handle = part.handle
    if not isinstance(handle, _FakeFeatures):
        raise BackendFailed(f"{type(handle).__name__} was not left by this backend")
    if (handle.model, handle.next_stage_index) != (stage.model, stage.stage_index):
        raise BackendFailed(f"features are for stage {handle.next_stage_index}, not {stage}")
    return handle.images
