"""What it costs to cut a network into stages, and classifiers off their stages.

`python -m benchmarks.stage_layout [--bundle PATH]` measures by turns in one process (a) all stages
and classifiers in sequence through the backend against one graph with the same outputs, and (b)
classifiers as graphs of their own against one graph a stage that does both. Only the ratios mean
anything: the machine may have other things to do. Without a bundle, a network of random weights is
exported first.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
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
from model_store.manifest import INPUT_TENSOR, LOGITS_TENSOR
from model_store.reader import Bundle, open_bundle
from service.backends.base import FeatureRows, StageKey
from service.backends.devices import CPU
from service.backends.onnx_features import Session
from service.backends.onnx_graph import IdleThreads, SessionFactory
from service.backends.onnx_runtime import OnnxRuntimeBackend

_BAR: Final = 1.2  # (a) at most
_TOLERANCE: Final = 1e-4  # of a logit: all layouts must compute the same
_TURNS_BY_BATCH_SIZE: Final = {1: 30, 32: 6}
# In a row: a server, too, runs one layout, whose weights stay in the caches.
_RUNS_A_TURN_BY_BATCH_SIZE: Final = {1: 10, 32: 3}
_MILLISECONDS: Final = 1e3

Array = NDArray[np.float32]
Layout = Callable[[Array], Array]
"""Pixels to logits ``(K, B, classes)`` of every exit, or ``(1, B, classes)`` of the last alone."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is varied: everything else is the same for all layouts."""

    num_threads: int
    idle_threads: IdleThreads
    batch_size: int

    @property
    def sessions(self) -> SessionFactory:
        """Opens graphs as the backend does."""
        return SessionFactory(CPU, self.num_threads, self.idle_threads)


class Bench:
    """A bundle's graphs, opened as the backend opens them, in the layouts to be compared."""

    def __init__(self, bundle: Bundle, scratch: Path) -> None:
        self._bundle = bundle
        self._scratch = scratch
        self._stages = bundle.manifest.stages

    def cut(self, setting: Setting) -> float:
        """Return (a), the price of stages in sequence as a share of the whole's."""
        whole = self._joined("whole", whole_graph(self._bundle), setting)
        medians_s = self._medians_s(
            setting,
            whole=lambda inputs: np.stack(whole.run(None, {INPUT_TENSOR: inputs})),
            served=self._served(setting),
        )
        ratio = medians_s["served"] / medians_s["whole"]
        _say(f"(a) whole {medians_s['whole'] * _MILLISECONDS:.2f} ms, stages {ratio:.3f} of it")
        return ratio

    def classifiers(self, setting: Setting) -> None:
        """Print (b), what classifiers apart cost, and what they save where not all are wanted."""
        sessions = setting.sessions
        trunks = [sessions.open(self._bundle.file(s.trunk.file)) for s in self._stages]
        heads = [sessions.open(self._bundle.file(s.classifier.file)) for s in self._stages]
        full = [
            self._joined(f"stage{k}", stage_graph(self._bundle, k), setting)
            for k in range(len(self._stages))
        ]
        every, last = range(len(heads)), [len(heads) - 1]
        medians_s = self._medians_s(
            setting,
            together=lambda inputs: _run_together(full, inputs),
            apart=lambda inputs: _run_apart(trunks, heads, inputs, exits=every),
            last_alone=lambda inputs: _run_apart(trunks, heads, inputs, exits=last),
        )
        apart = medians_s["apart"] / medians_s["together"]
        saved = medians_s["last_alone"] / medians_s["together"]
        _say(f"(b) classifiers apart {apart:.3f} of together, {saved:.3f} if only the last runs")

    def _joined(self, name: str, model: onnx.ModelProto, setting: Setting) -> Session:
        path = self._scratch / f"{name}.onnx"
        onnx.save(model, path)
        return setting.sessions.open(path)

    def _served(self, setting: Setting) -> Layout:
        key = key_of(self._bundle)
        backend = OnnxRuntimeBackend(
            {key: self._bundle},
            device="cpu",
            num_threads=setting.num_threads,
            idle_threads=setting.idle_threads,
        )

        def run(inputs: Array) -> Array:
            features = backend.put(key, inputs)
            rows = tuple(range(len(inputs)))
            logits = []
            for stage_index in range(len(self._stages)):
                stage, parts = StageKey(key, stage_index), [FeatureRows(features, rows)]
                output = backend.submit(stage, parts, classify=rows).result()
                features = output.features
                logits.append(output.logits)
            return np.stack(logits)

        return run

    def _medians_s(self, setting: Setting, **layouts: Layout) -> dict[str, float]:
        """Return each layout's median time, all of them by turns, so that noise meets all alike."""
        inputs = self._inputs(setting.batch_size)
        _check_same(layouts.values(), inputs)
        elapsed_s: dict[str, list[float]] = {name: [] for name in layouts}
        for _ in range(_TURNS_BY_BATCH_SIZE[setting.batch_size]):
            for name, run in layouts.items():
                run(inputs)
                for _ in range(_RUNS_A_TURN_BY_BATCH_SIZE[setting.batch_size]):
                    started_at = perf_counter()
                    run(inputs)
                    elapsed_s[name].append(perf_counter() - started_at)
        return {name: statistics.median(times) for name, times in elapsed_s.items()}

    def _inputs(self, batch_size: int) -> Array:
        image = self._bundle.manifest.input
        shape = (batch_size, image.channels, image.height, image.width)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def main() -> int:
    """Print the ratios; fail if stages in sequence cost more than the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="of ONNX graphs (default: random weights)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--idle", type=IdleThreads, default=IdleThreads.SLEEP, help="sleep or spin")
    options = parser.parse_args()
    ratios = []
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        bench = Bench(open_bundle(options.bundle or random_bundle(scratch)), scratch)
        for batch_size in _TURNS_BY_BATCH_SIZE:
            setting = Setting(options.threads, options.idle, batch_size)
            _say(f"{options.threads} threads that {options.idle.value}, batch {batch_size}")
            ratios.append(bench.cut(setting))
            bench.classifiers(setting)
    return 0 if max(ratios) <= _BAR else 1


def _run_apart(
    trunks: Sequence[Session], heads: Sequence[Session], inputs: Array, *, exits: Sequence[int]
) -> Array:
    features: Sequence[Array] = [inputs]
    logits = []
    for stage_index, trunk in enumerate(trunks):
        features = trunk.run(None, _by_name(trunk, features))
        if stage_index in exits:
            head = heads[stage_index]
            logits.append(head.run([LOGITS_TENSOR], _by_name(head, features[-1:]))[0])
    return np.stack(logits)


def _run_together(stages: Sequence[Session], inputs: Array) -> Array:
    features: Sequence[Array] = [inputs]
    logits = []
    for stage in stages:
        *features, answered = stage.run(None, _by_name(stage, features))
        logits.append(answered)
    return np.stack(logits)


def _by_name(session: Session, tensors: Sequence[Array]) -> dict[str, Array]:
    return {read.name: tensor for read, tensor in zip(session.get_inputs(), tensors, strict=True)}


def _check_same(layouts: Iterable[Layout], inputs: Array) -> None:
    found = [run(inputs) for run in layouts]
    for logits in found[1:]:
        deviation = float(np.abs(logits - found[0][-len(logits) :]).max())
        if not deviation <= _TOLERANCE:
            raise SystemExit(f"layouts differ by {deviation:.2e}: there is nothing to compare")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
