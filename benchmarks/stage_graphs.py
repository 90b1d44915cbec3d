"""A bundle's graphs as bare sessions, and noise for each of them to read: no backend, no server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model_store.manifest import INPUT_TENSOR
from model_store.reader import Bundle
from service.backends.devices import CPU
from service.backends.onnx_graph import SessionFactory

Feeds = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph and what it reads."""

    session: onnxruntime.InferenceSession
    feeds: Feeds

    def first(self, num_rows: int) -> "Graph":
        """Return the same for the first rows alone; nothing is copied."""
        return Graph(self.session, {name: rows[:num_rows] for name, rows in self.feeds.items()})

    def run(self) -> None:
        """Run it and forget what it says."""
        self.session.run(None, self.feeds)


@dataclass(frozen=True, slots=True)
class StageGraphs:
    """Both graphs of a stage."""

    trunk: Graph
    classifier: Graph

    def first(self, num_rows: int) -> "StageGraphs":
        """Return the same for the first rows alone."""
        return StageGraphs(self.trunk.first(num_rows), self.classifier.first(num_rows))


def open_stages(bundle: Bundle, *, num_threads: int, num_rows: int) -> list[StageGraphs]:
    """Open every graph as the server's backend does, and run noise through once.

    Args:
        bundle: Of ONNX graphs.
        num_threads: Of the runtime, for each graph.
        num_rows: Images that the graphs are given to read.
    """
    sessions = SessionFactory(CPU, num_threads)
    image = bundle.manifest.input
    shape = (num_rows, image.channels, image.height, image.width)
    # Not zeros: some kernels are quicker on them.
    feeds: Feeds = {INPUT_TENSOR: np.random.default_rng(0).standard_normal(shape, np.float32)}
    opened = []
    for stage in bundle.manifest.stages:
        trunk = Graph(sessions.open(bundle.file(stage.trunk.file)), feeds)
        left: Sequence[Any] = trunk.session.run(stage.output_names, feeds)
        feeds = dict(zip(stage.output_names, left, strict=True))
        read = {name: feeds[name] for name in stage.classifier_inputs}
        classifier = Graph(sessions.open(bundle.file(stage.classifier.file)), read)
        opened.append(StageGraphs(trunk, classifier))
    return opened
