"""The backend of a group under test: scripted answers, and stages that take a moment."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from model_store.reader import Bundle
from service.backends.base import ModelKey
from service.backends.fake import FakeBackend, FakeModel, StageCall
from service.settings import Settings

NUM_CLASSES = 4
HELD_IMAGE = 200  # waits before stage 1 for as long as `HOLD` is there
HOLD = "hold"
LIMIT_S = 30.0  # of whatever a test waits for
HELD_LIMIT_S = 60.0  # a hold that somebody forgot comes to an end


def build(bundles: Mapping[ModelKey, Bundle], settings: Settings) -> FakeBackend:
    """Answers with rising confidence; an image is known by its first pixel's red."""
    hold = settings.model_store[0] / HOLD

    def stay(call: StageCall) -> None:
        if call.stage.stage_index != 1 or HELD_IMAGE not in call.images:
            return
        ends_at = time.monotonic() + HELD_LIMIT_S
        while hold.exists() and time.monotonic() < ends_at:
            threading.Event().wait(0.005)

    script = FakeModel((0.5, 0.7, 0.9), num_classes=NUM_CLASSES, number_of=_first_pixel)
    return FakeBackend(dict.fromkeys(bundles, script), hooks=(stay,))


def _first_pixel(image: np.ndarray) -> int:
    return round(float(image.flat[0]) * 255)


def hold_in(root: Path) -> Path:
    """The file that holds images back."""
    return root / HOLD
