"""A small bundle on disk: two stages with dummy graphs, twenty hold-out images, three classes."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from model_store.calibration import Calibration
from model_store.layout import FORMAT_VERSION
from model_store.manifest import (
    Compaction,
    Graph,
    ImageInput,
    ManifestDraft,
    Provenance,
    Stage,
    TensorSpec,
)
from model_store.writer import write_bundle

SUFFIXES = {"onnx": "onnx", "torchscript": "pt"}


def _draft(
    *,
    name: str = "tiny",
    version: int = 1,
    runtime: Literal["onnx", "torchscript"] = "onnx",
    with_compaction: bool = True,
) -> ManifestDraft:
    suffix = SUFFIXES[runtime]
    stages = (
        Stage(
            trunk=Graph(file=f"graphs/trunk-0.{suffix}", macs=100),
            outputs=(
                TensorSpec(name="fine_0", shape=(2, 8, 8)),
                TensorSpec(name="coarse_0", shape=(4, 4, 4)),
            ),
            classifier=Graph(file=f"graphs/classifier-0.{suffix}", macs=10),
            classifier_inputs=("coarse_0",),
        ),
        Stage(
            trunk=Graph(file=f"graphs/trunk-1.{suffix}", macs=200),
            outputs=(TensorSpec(name="coarse_1", shape=(6, 4, 4)),),
            classifier=Graph(file=f"graphs/classifier-1.{suffix}", macs=20),
            classifier_inputs=("coarse_1",),
        ),
    )
    return ManifestDraft(
        format_version=FORMAT_VERSION,
        name=name,
        version=version,
        runtime=runtime,
        executable=runtime == "torchscript",
        labels=("cat", "dog", "ship"),
        input=ImageInput(
            height=8, width=8, channels=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
        ),
        stages=stages,
        compaction=Compaction(gather=f"graphs/gather.{suffix}", concat=f"graphs/concat.{suffix}")
        if with_compaction
        else None,
        calibration="calibration.npz",
        provenance=Provenance(
            recipe={"epochs": 3, "sgd": {"rate": 0.1}},
            data_digest="0" * 64,
            seed=7,
            versions={"numpy": np.__version__},
            results={"test_accuracy": [0.8, 0.9]},
            created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            note=None,
        ),
    )


def _calibration(
    *, num_images: int = 20, num_exits: int = 2, num_classes: int = 3, seed: int = 0
) -> Calibration:
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=num_images)
    logits = random.normal(size=(num_images, num_exits, num_classes))
    logits[np.arange(num_images), :, labels] += 2
    return Calibration.build(logits, labels, seed)


def _graphs(draft: ManifestDraft) -> dict[str, bytes]:
    return {file: f"graph {file}".encode() for file in draft.graph_files}


def _bundle(root: Path, draft: ManifestDraft) -> Path:
    return write_bundle(root, draft, _graphs(draft), _calibration())


@pytest.fixture(scope="session")
def make_draft() -> Callable[..., ManifestDraft]:
    """Builds a valid draft: `name`, `version`, `runtime`, `with_compaction`."""
    return _draft


@pytest.fixture(scope="session")
def make_calibration() -> Callable[..., Calibration]:
    """Builds a random calibration: `num_images`, `num_exits`, `num_classes`, `seed`."""
    return _calibration


@pytest.fixture(scope="session")
def make_graphs() -> Callable[[ManifestDraft], dict[str, bytes]]:
    """Builds contents for the graphs of a draft."""
    return _graphs


@pytest.fixture(scope="session")
def make_bundle() -> Callable[[Path, ManifestDraft], Path]:
    """Writes a draft with dummy graphs into a root and returns the bundle's directory."""
    return _bundle


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A bundle of the test's own, `tiny@1`."""
    return _bundle(tmp_path, _draft())
