"""Logits of every exit of a bundle's own graphs: what a server's answers are held against."""

import numpy as np
from numpy.typing import NDArray

from model_store.confidence import max_softmax
from model_store.preprocessing import normalise
from model_store.reader import Bundle
from service.backends.base import FeatureRows, ModelKey, StageBackend, StageKey


def key_of(bundle: Bundle) -> ModelKey:
    """Return the key that a bundle is served under."""
    return ModelKey(bundle.manifest.name, str(bundle.manifest.version))


def logits_by_exit(
    backend: StageBackend, bundle: Bundle, pixels: NDArray[np.uint8], *, batch_size: int
) -> NDArray[np.float32]:
    """Return logits, shape ``(images, exits, classes)``, of pixels ``(images, H, W, 3)``."""
    parts = [
        np.stack(_run(backend, bundle, pixels[first : first + batch_size]), axis=1)
        for first in range(0, len(pixels), batch_size)
    ]
    return np.concatenate(parts)


def confidences_by_exit(bundle: Bundle, logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return calibrated confidences, shape ``(images, exits)``."""
    temperatures = bundle.calibration.temperatures
    return np.stack(
        [max_softmax(logits[:, k], float(t)) for k, t in enumerate(temperatures)], axis=1
    )


def _run(
    backend: StageBackend, bundle: Bundle, pixels: NDArray[np.uint8]
) -> list[NDArray[np.float32]]:
    image, key = bundle.manifest.input, key_of(bundle)
    features = backend.put(key, normalise(pixels, mean=image.mean, std=image.std))
    rows = tuple(range(len(pixels)))
    logits = []
    for stage_index in range(len(bundle.manifest.stages)):
        stage = StageKey(key, stage_index)
        output = backend.submit(stage, [FeatureRows(features, rows)], classify=rows).result()
        features = output.features
        logits.append(output.logits)
    return logits
