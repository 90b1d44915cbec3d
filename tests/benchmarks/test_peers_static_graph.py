"""A static graph is the network up to one exit, no more and no less."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from benchmarks.serving.peers.static_graph import static_graph, stored_graph
from model_store.reader import Bundle, open_bundle

BUNDLE = Path("model_store/bundles/cifar10-msdnet/1")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(BUNDLE)


def run(graph: bytes, inputs: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    wanted = {i.name: inputs[i.name.removeprefix("t0.")] for i in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, wanted), strict=True))


def logits_by_stages(
    bundle: Bundle, exit_index: int, pixels: NDArray[np.float32]
) -> NDArray[np.float32]:
    tensors = {"pixels": pixels}
    stages = bundle.manifest.stages
    for stage in stages[: exit_index + 1]:
        tensors = run(bundle.file(stage.trunk.file).read_bytes(), tensors)
    classifier = bundle.file(stages[exit_index].classifier.file)
    return run(classifier.read_bytes(), tensors)["logits"]


@pytest.mark.parametrize("exit_index", [0, 3, 6])
def test_a_static_graph_gives_the_logits_that_its_stages_give(bundle: Bundle, exit_index: int):
    pixels = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)

    (logits,) = run(
        static_graph(bundle, exit_index).SerializeToString(), {"pixels": pixels}
    ).values()

    # Fused across stage borders the sums are taken in another order: float32, some 40 layers.
    expected = logits_by_stages(bundle, exit_index, pixels)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_other_classifiers_and_what_only_they_or_later_stages_read_are_pruned(bundle: Bundle):
    graph = static_graph(bundle, 3).graph

    names = {node.name.split(".")[0] for node in graph.node}
    assert names == {"t0", "t1", "t2", "t3", "c"}
    assert [output.name for output in graph.output] == ["c.logits"]
    read = {name for node in graph.node for name in node.input} | {"c.logits"}
    assert all(set(node.output) & read for node in graph.node)


def test_an_exit_that_the_network_lacks_has_no_graph(bundle: Bundle):
    with pytest.raises(IndexError, match="exit 7 of a bundle that has 7"):
        static_graph(bundle, 7)


def test_a_stored_graph_is_made_once(bundle: Bundle, tmp_path: Path):
    first = stored_graph(bundle, 0, tmp_path / "graphs")
    written_at = first.stat().st_mtime_ns

    assert stored_graph(bundle, 0, tmp_path / "graphs").stat().st_mtime_ns == written_at
    onnx.checker.check_model(onnx.load(first))
