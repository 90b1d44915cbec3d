import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_store.calibration import Calibration
from model_store.catalog import Catalog
from model_store.errors import BundleExists, BundleFilesDisagree, ManifestInvalid
from model_store.manifest import ManifestDraft, Provenance
from model_store.reader import open_bundle
from model_store.writer import write_bundle

GRAPH = "graphs/trunk-0.onnx"


def test_a_written_bundle_opens(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_graphs: Callable[[ManifestDraft], dict[str, bytes]],
    make_calibration: Callable[..., Calibration],
):
    draft = make_draft(version=12)
    calibration = make_calibration()

    path = write_bundle(tmp_path / "new" / "root", draft, make_graphs(draft), calibration)

    bundle = open_bundle(path)
    assert path == tmp_path / "new" / "root" / "tiny" / "12"
    assert dict(draft) == {k: v for k, v in dict(bundle.manifest).items() if k != "files"}
    assert np.array_equal(bundle.calibration.logits, calibration.logits)
    assert bundle.file(GRAPH).read_bytes() == make_graphs(draft)[GRAPH]


def test_graphs_can_be_copied_from_files(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_graphs: Callable[[ManifestDraft], dict[str, bytes]],
    make_calibration: Callable[..., Calibration],
):
    draft = make_draft()
    source = tmp_path / "source.onnx"
    source.write_bytes(b"weights" * 300_000)

    path = write_bundle(
        tmp_path / "root", draft, {**make_graphs(draft), GRAPH: source}, make_calibration()
    )

    assert open_bundle(path).file(GRAPH).read_bytes() == source.read_bytes()


def test_equal_bundles_have_equal_digests(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_bundle: Callable[[Path, ManifestDraft], Path],
):
    paths = [make_bundle(tmp_path / root, make_draft()) for root in ("a", "b")]

    digests = {open_bundle(path).digest for path in paths}

    assert len(digests) == 1


def test_files_are_listed_with_their_digests(bundle_path: Path):
    files = json.loads((bundle_path / "manifest.json").read_text())["files"]

    for name, digest in files.items():
        content = (bundle_path / name).read_bytes()
        assert digest["sha256"] == hashlib.sha256(content).hexdigest()
        assert digest["size_bytes"] == len(content)


def test_files_are_read_only(bundle_path: Path):
    files = [path for path in bundle_path.rglob("*") if path.is_file()]

    assert len(files) == 9
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in files)


def test_a_version_that_is_there_is_never_replaced(
    bundle_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_bundle: Callable[[Path, ManifestDraft], Path],
):
    before = (bundle_path / "manifest.json").stat().st_ino

    with pytest.raises(BundleExists, match="tiny/1 is there already"):
        make_bundle(bundle_path.parent.parent, make_draft(with_compaction=False))

    assert (bundle_path / "manifest.json").stat().st_ino == before


def test_files_other_than_the_manifests_are_refused_by_name(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_graphs: Callable[[ManifestDraft], dict[str, bytes]],
    make_calibration: Callable[..., Calibration],
):
    files = {**make_graphs(make_draft()), "graphs/more.onnx": b""}
    del files[GRAPH]

    with pytest.raises(BundleFilesDisagree) as refusal:
        write_bundle(tmp_path, make_draft(), files, make_calibration())

    assert f"missing ['{GRAPH}'], not in the manifest ['graphs/more.onnx']" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_of_another_network_is_refused(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_graphs: Callable[[ManifestDraft], dict[str, bytes]],
    make_calibration: Callable[..., Calibration],
):
    calibration = make_calibration(num_exits=3)

    with pytest.raises(BundleFilesDisagree, match="3 exits and 3 classes"):
        write_bundle(tmp_path, make_draft(), make_graphs(make_draft()), calibration)


def test_a_manifest_that_no_reader_takes_is_not_written(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_graphs: Callable[[ManifestDraft], dict[str, bytes]],
    make_calibration: Callable[..., Calibration],
):
    draft = make_draft()
    long = Provenance(**{**dict(draft.provenance), "note": "x" * 2**22})
    draft = draft.model_copy(update={"provenance": long})

    with pytest.raises(ManifestInvalid, match="more than 4194304 bytes"):
        write_bundle(tmp_path, draft, make_graphs(draft), make_calibration())

    assert Catalog([tmp_path]).names() == ()


def test_a_writer_that_fails_leaves_nothing(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_graphs: Callable[[ManifestDraft], dict[str, bytes]],
    make_calibration: Callable[..., Calibration],
):
    files: dict[str, Path | bytes] = {**make_graphs(make_draft()), GRAPH: tmp_path / "absent"}

    with pytest.raises(FileNotFoundError):
        write_bundle(tmp_path, make_draft(), files, make_calibration())

    assert [path for path in tmp_path.rglob("*") if path.name != "tiny"] == []
    assert Catalog([tmp_path]).names() == ()
