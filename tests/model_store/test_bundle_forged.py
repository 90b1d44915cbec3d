import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from model_store.calibration import Calibration
from model_store.errors import (
    BundleRefused,
    CalibrationInvalid,
    FormatUnknown,
    ManifestInvalid,
)
from model_store.reader import open_bundle

Refusal = TypeVar("Refusal", bound=BundleRefused)


def _overwrite(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # bundles are read-only
    path.write_bytes(content)


def _seal(bundle: Path) -> None:
    """Vouch for whatever the manifest now says, as a forger would."""
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    _overwrite(bundle / "manifest.sha256", f"{digest}  manifest.json\n".encode())


def _forge(bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((bundle / "manifest.json").read_text())
    edit(document)
    _overwrite(bundle / "manifest.json", json.dumps(document).encode())
    _seal(bundle)


def _replace_calibration(bundle: Path, content: bytes) -> None:
    digest = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    _overwrite(bundle / "calibration.npz", content)
    _forge(bundle, lambda document: document["files"].update({"calibration.npz": digest}))


def _refusal(error: type[Refusal], bundle: Path, **options: bool) -> Refusal:
    with pytest.raises(error) as caught:
        open_bundle(bundle, **options)
    return caught.value


@pytest.mark.parametrize("path", ["/etc/passwd", "../2/manifest.json", "graphs/../../x.onnx"])
def test_a_manifest_that_names_a_file_outside_is_refused(bundle_path: Path, path: str):
    def point_outside(document: dict[str, Any]) -> None:
        document["stages"][0]["trunk"]["file"] = path
        document["files"][path] = document["files"].pop("graphs/trunk-0.onnx")

    _forge(bundle_path, point_outside)

    refusal = _refusal(ManifestInvalid, bundle_path)

    assert "stages.0.trunk.file: String should match pattern" in str(refusal)
    assert path in str(refusal)


def test_a_later_format_is_refused_with_the_versions_known(bundle_path: Path):
    _forge(bundle_path, lambda document: document.update(format_version=2))

    refusal = _refusal(FormatUnknown, bundle_path)

    assert "format_version is 2; this reader knows version 1" in str(refusal)


def test_a_calibration_of_another_network_is_refused(
    bundle_path: Path, make_calibration: Callable[..., Calibration]
):
    _replace_calibration(bundle_path, make_calibration(num_exits=3).to_bytes())

    refusal = _refusal(CalibrationInvalid, bundle_path)

    assert "calibration.npz: logits have 3 exits and 3 classes: the manifest has 2" in str(refusal)


def test_a_calibration_that_is_no_archive_is_refused(bundle_path: Path):
    _replace_calibration(bundle_path, b"photographs")

    assert "not a readable archive" in str(_refusal(CalibrationInvalid, bundle_path))


def test_a_pickle_in_the_calibration_is_refused_unopened(bundle_path: Path, tmp_path: Path):
    table = Calibration.read(bundle_path / "calibration.npz")
    np.savez(
        tmp_path / "evil.npz",
        labels=np.array([{}] * table.num_images, dtype=object),
        logits=table.logits,
        is_fitting=table.is_fitting,
        temperatures=table.temperatures,
    )
    _replace_calibration(bundle_path, (tmp_path / "evil.npz").read_bytes())

    assert "labels has no header" in str(_refusal(CalibrationInvalid, bundle_path))
