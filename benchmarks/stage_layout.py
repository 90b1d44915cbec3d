"""What it costs to cut a network into stages, and classifiers off their stages.

`python -m benchmarks.stage_layout [--bundle PATH]` measures, interleaved in one process, (a) all
stages and classifiers in sequence through the backend against one graph with the same outputs, and
(b) classifiers as graphs of their own against one graph a stage that does both. Only the ratios
mean anything: the machine may have other things to do. Without a bundle, a network of random
weights is exported first.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.layout_graphs import random_bundle, stage_graph, whole_graph
from benchmarks.offline import key_of
from model_store.manifest import LOGITS_TENSOR
from model_store.reader import Bundle, open_bundle
from service.backends.base import FeatureRows, StageKey
from service.backends.devices import CPU
from service.backends.onnx_features import Session
from service.backends.onnx_graph import SessionFactory
from service.backends.onnx_runtime import OnnxRuntimeBackend

_BAR: Final = 1.2  # (a) at most
_TOLERANCE: Final = 1e-4  # of a logit: all layouts must compute the same
_REPETITIONS_BY_BATCH_SIZE: Final = {1: 200, 32: 25}
_MILLISECONDS: Final = 1e3

Array = NDArray[np.float32]
Layout = Callable[[Array], Array]
"""Pixels to logits: of every exit, ``(K, B, classes)``, or of the last alone, ``(1, B, classes)``."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle's graphs as they are, and the alternatives to them."""

    trunks: tuple[Session, ...]
    classifiers: tuple[Session, ...]
    stages: tuple[Session, ...]  # trunk and classifier in one
    whole: Session


def main() -> int:
    """Print the ratios; fail if stages in sequence cost more than the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="of ONNX graphs (default: random weights)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        bundle = open_bundle(options.bundle or random_bundle(scratch))
        ratios = [
            _compare(bundle, _layouts(bundle, scratch, num_threads), num_threads, batch_size)
            for num_threads in options.threads
            for batch_size in _REPETITIONS_BY_BATCH_SIZE
        ]
    return 0 if max(ratios) <= _BAR else 1


def _compare(
    bundle: Bundle, layouts: dict[str, Layout], num_threads: int, batch_size: int
) -> float:
    image = bundle.manifest.input
    shape = (batch_size, image.channels, image.height, image.width)
    inputs = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    _check_same(layouts, inputs)
    medians_s = _medians_s(layouts, inputs, _REPETITIONS_BY_BATCH_SIZE[batch_size])
    cut = medians_s["served"] / medians_s["whole"]
    apart = medians_s["apart"] / medians_s["together"]
    saved = medians_s["apart, last alone"] / medians_s["together"]
    sys.stdout.write(
        f"{num_threads} threads, batch {batch_size}: "
        f"the whole takes {medians_s['whole'] * _MILLISECONDS:.2f} ms; "
        f"(a) stages {cut:.3f} of it; "
        f"(b) classifiers apart {apart:.3f} of together, {saved:.3f} if only the last is wanted\n"
    )
    return cut


def _layouts(bundle: Bundle, scratch: Path, num_threads: int) -> dict[str, Layout]:
    opened = _open(bundle, scratch, SessionFactory(CPU, num_threads))
    last = len(opened.trunks) - 1
    return {
        "whole": lambda inputs: np.stack(opened.whole.run(None, {"pixels": inputs})),
        "served": _served(bundle, num_threads),
        "apart": lambda inputs: _run_apart(opened, inputs, range(last + 1)),
        "together": lambda inputs: _run_together(opened, inputs),
        "apart, last alone": lambda inputs: _run_apart(opened, inputs, [last]),
    }


def _open(bundle: Bundle, scratch: Path, sessions: SessionFactory) -> Opened:
    def joined(name: str, model: onnx.ModelProto) -> Session:
        path = scratch / f"{name}.onnx"
        onnx.save(model, path)
        return sessions.open(path)

    stages = bundle.manifest.stages
    return Opened(
        trunks=tuple(sessions.open(bundle.file(stage.trunk.file)) for stage in stages),
        classifiers=tuple(sessions.open(bundle.file(stage.classifier.file)) for stage in stages),
        stages=tuple(joined(f"stage{k}", stage_graph(bundle, k)) for k in range(len(stages))),
        whole=joined("whole", whole_graph(bundle)),
    )


def _served(bundle: Bundle, num_threads: int) -> Layout:
    key = key_of(bundle)
    backend = OnnxRuntimeBackend({key: bundle}, device="cpu", num_threads=num_threads)

    def run(inputs: Array) -> Array:
        features = backend.put(key, inputs)
        rows = tuple(range(len(inputs)))
        logits = []
        for stage_index in range(len(bundle.manifest.stages)):
            stage = StageKey(key, stage_index)
            output = backend.submit(stage, [FeatureRows(features, rows)], classify=rows).result()
            features = output.features
            logits.append(output.logits)
        return np.stack(logits)

    return run


def _run_apart(opened: Opened, inputs: Array, exits: Sequence[int]) -> Array:
    features: Sequence[Array] = [inputs]
    logits = []
    for stage_index, trunk in enumerate(opened.trunks):
        features = trunk.run(None, _by_name(trunk, features))
        if stage_index in exits:
            classifier = opened.classifiers[stage_index]
            logits.append(classifier.run([LOGITS_TENSOR], _by_name(classifier, features[-1:]))[0])
    return np.stack(logits)


def _run_together(opened: Opened, inputs: Array) -> Array:
    features: Sequence[Array] = [inputs]
    logits = []
    for stage in opened.stages:
        *features, answered = stage.run(None, _by_name(stage, features))
        logits.append(answered)
    return np.stack(logits)


def _by_name(session: Session, tensors: Sequence[Array]) -> dict[str, Array]:
    return {read.name: tensor for read, tensor in zip(session.get_inputs(), tensors, strict=True)}


def _check_same(layouts: dict[str, Layout], inputs: Array) -> None:
    expected = layouts["whole"](inputs)
    for name, run in layouts.items():
        found = run(inputs)
        deviation = float(np.abs(found - expected[-len(found) :]).max())
        if not deviation <= _TOLERANCE:
            raise SystemExit(f"{name} is off by {deviation:.2e}: nothing to compare")


def _medians_s(layouts: dict[str, Layout], inputs: Array, repetitions: int) -> dict[str, float]:
    """Return each layout's median time, all of them by turns, so that noise meets all alike."""
    elapsed_s: dict[str, list[float]] = {name: [] for name in layouts}
    for _ in range(repetitions):
        for name, run in layouts.items():
            started_at = perf_counter()
            run(inputs)
            elapsed_s[name].append(perf_counter() - started_at)
    return {name: statistics.median(times) for name, times in elapsed_s.items()}


if __name__ == "__main__":
    sys.exit(main())
