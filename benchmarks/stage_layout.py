"""What it costs to cut a network into stages, and classifiers off their stages.

`python -m benchmarks.stage_layout [--bundle PATH]` measures, interleaved in one process, (a) all
stages and classifiers in sequence through the backend against one graph with the same outputs, and
(b) classifiers as graphs of their own against one graph per stage that does both. Only the ratios
mean anything: the machine may have other things to do. Without a bundle, a network of random weights
is exported first.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.offline import key_of
from benchmarks.random_bundle import export_random_bundle
from model_store.manifest import INPUT_TENSOR, LOGITS_TENSOR
from model_store.reader import Bundle, open_bundle
from service.backends.base import FeatureRows, StageKey
from service.backends.devices import CPU
from service.backends.onnx_features import HostFeatures, Session
from service.backends.onnx_graph import SessionFactory
from service.backends.onnx_runtime import OnnxRuntimeBackend

_BAR: Final = 1.2  # stages in sequence against the whole
_TOLERANCE: Final = 1e-4  # of a logit: the two must compute the same
_REPETITIONS_BY_BATCH: Final = {1: 200, 32: 20}

Array = NDArray[np.float32]
Run = Callable[[Array], list[Array]]


@dataclass(frozen=True, slots=True)
class Layouts:
    """The same network, run in different ways; each returns every exit's logits but the last two."""

    backend: Run  # stages and classifiers as they are served
    whole: Run  # one graph
    apart: Run  # trunk and classifier in turn, without the backend
    together: Run  # one graph a stage that returns logits too
    apart_last_only: Run  # no classifier but the last
    together_last_only: Run  # the same answer, where classifiers cannot be left out


def main() -> int:
    """Print the ratios; fail if stages in sequence cost more than the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="of ONNX graphs (default: random weights)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with _opened(options.bundle) as bundle, TemporaryDirectory() as folder:
        ratios = [
            _report(_layouts(bundle, Path(folder), num_threads), batch_size, num_threads)
            for num_threads in options.threads
            for batch_size in _REPETITIONS_BY_BATCH
        ]
    return 0 if max(ratios) <= _BAR else 1


@contextmanager
def _opened(path: Path | None) -> Iterator[Bundle]:
    if path is not None:
        yield open_bundle(path)
        return
    with TemporaryDirectory() as root:
        yield open_bundle(export_random_bundle(Path(root)))


def _report(layouts: Layouts, batch_size: int, num_threads: int) -> float:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((batch_size, *_IMAGE), dtype=np.float32)
    _check_same(layouts, inputs)
    runs = {name: getattr(layouts, name) for name in Layouts.__slots__}
    medians = _medians_s(runs, inputs, _REPETITIONS_BY_BATCH[batch_size])
    cut = medians["backend"] / medians["whole"]
    apart = medians["apart"] / medians["together"]
    saved = medians["apart_last_only"] / medians["together_last_only"]
    sys.stdout.write(
        f"{num_threads} threads, batch {batch_size}: "
        f"whole {1e3 * medians['whole']:.2f} ms; "
        f"(a) stages / whole {cut:.3f}; "
        f"(b) classifiers apart / together {apart:.3f} with all of them, "
        f"{saved:.3f} with the last alone\n"
    )
    return cut
