import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from model_store.calibration import Calibration
from model_store.errors import BundleRefused
from model_store.manifest import BundleModel
from model_store.reader import open_bundle

Parent = TypeVar("Parent")

DOCUMENT = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text(encoding="utf-8")


def _descendants(ancestor: type[Parent]) -> Iterator[type[Parent]]:
    for child in ancestor.__subclasses__():
        yield child
        yield from _descendants(child)


FIELDS = sorted(
    {
        f"{model.__name__}.{field}"
        for model in _descendants(BundleModel)
        for field in model.model_fields
    }
)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_the_manifest_is_in_the_document(field: str):
    assert f"`{field.partition('.')[2]}`" in DOCUMENT


def test_every_refusal_of_the_reader_is_in_the_document():
    documented = set(re.findall(r"^\| `([A-Z]\w+)` \|", DOCUMENT, flags=re.MULTILINE))

    assert documented == {error.__name__ for error in _descendants(BundleRefused)}


def test_every_array_of_the_calibration_is_in_the_document(
    make_calibration: Callable[..., Calibration],
):
    for name in ("labels", "logits", "is_fitting", "temperatures"):
        described = re.search(rf"^\| `{name}` \|[^|]*\| `([^`]*)` \|", DOCUMENT, flags=re.MULTILINE)

        assert described is not None
        assert described[1].replace("\\", "") == getattr(make_calibration(), name).dtype.str


def test_the_documents_own_reader_reads_a_bundle(bundle_path: Path):
    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)

    output = subprocess.run(
        [sys.executable, "-c", script, str(bundle_path)], check=True, capture_output=True, text=True
    ).stdout

    accuracies = open_bundle(bundle_path).calibration.is_right().mean(axis=0)
    assert output.splitlines() == [
        f"graphs/classifier-{k}.onnx {round(float(accuracy), 4)}"
        for k, accuracy in enumerate(accuracies)
    ]
