import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from model_store.errors import (
    BundleIncomplete,
    BundleMisplaced,
    BundleRefused,
    BundleUnreadable,
    DigestMismatch,
    ExecutableRefused,
    FileMissing,
    FileNotRegular,
    FileUnexpected,
    NotABundle,
    SizeMismatch,
)
from model_store.manifest import ManifestDraft
from model_store.reader import open_bundle

GRAPH = "graphs/trunk-1.onnx"

Refusal = TypeVar("Refusal", bound=BundleRefused)


def _overwrite(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # bundles are read-only
    path.write_bytes(content)


def _refusal(error: type[Refusal], bundle: Path, **options: bool) -> Refusal:
    with pytest.raises(error) as caught:
        open_bundle(bundle, **options)
    return caught.value


def test_a_bundle_opens_with_all_that_serving_needs(bundle_path: Path):
    bundle = open_bundle(bundle_path)

    assert bundle.path == bundle_path
    assert bundle.costs.cumulative_macs == (110, 330)
    assert bundle.calibration.num_images == 20
    assert bundle.file(GRAPH) == bundle_path / GRAPH
    assert bundle.digest == hashlib.sha256((bundle_path / "manifest.json").read_bytes()).hexdigest()


def test_a_bundle_opens_by_a_relative_path(bundle_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(bundle_path / "graphs")

    assert open_bundle(Path("..")).path == bundle_path


def test_a_bundle_opens_through_a_link_to_its_store(bundle_path: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)

    assert open_bundle(tmp_path / "link" / "tiny" / "1").manifest.name == "tiny"


def test_a_file_that_the_manifest_does_not_list_is_not_handed_out(bundle_path: Path):
    bundle = open_bundle(bundle_path)

    with pytest.raises(KeyError, match=r"lists no '\.\./2"):
        bundle.file("../2/graphs/trunk-1.onnx")


def test_code_is_opened_only_where_it_is_allowed(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_bundle: Callable[[Path, ManifestDraft], Path],
):
    path = make_bundle(tmp_path, make_draft(runtime="torchscript"))

    refusal = _refusal(ExecutableRefused, path)

    assert "manifest.json: runtime torchscript is code" in str(refusal)
    assert open_bundle(path, allow_executable=True).manifest.executable


def test_a_place_where_there_is_nothing_is_no_bundle(tmp_path: Path):
    assert "expected a directory" in str(_refusal(NotABundle, tmp_path / "absent"))


def test_a_foreign_directory_is_no_bundle(tmp_path: Path):
    (tmp_path / "README.md").write_text("photographs")

    assert _refusal(NotABundle, tmp_path).file == "manifest.json"


def test_a_bundle_without_its_last_file_is_half_written(bundle_path: Path):
    (bundle_path / "manifest.sha256").unlink()

    refusal = _refusal(BundleIncomplete, bundle_path)

    assert "manifest.sha256: missing: it is written last" in str(refusal)


@pytest.mark.parametrize("name", [GRAPH, "calibration.npz", "graphs/gather.onnx"])
def test_a_missing_file_is_named(bundle_path: Path, name: str):
    (bundle_path / name).unlink()

    assert _refusal(FileMissing, bundle_path).file == name


def test_a_missing_folder_of_graphs_is_missing_graphs(bundle_path: Path):
    shutil.rmtree(bundle_path / "graphs")

    assert _refusal(FileMissing, bundle_path).file == "graphs/classifier-0.onnx"


@pytest.mark.parametrize("name", ["notes.txt", "graphs/weights.data", ".DS_Store"])
def test_a_file_nobody_vouches_for_is_refused(bundle_path: Path, name: str):
    (bundle_path / name).write_bytes(b"")

    assert _refusal(FileUnexpected, bundle_path).file == name


def test_a_strange_file_name_stays_on_its_line_of_the_log(bundle_path: Path):
    Path(os.fsdecode(os.fsencode(bundle_path) + b"/a\n\xff")).write_bytes(b"")

    refusal = _refusal(FileUnexpected, bundle_path)

    assert str(refusal).endswith(r": 'a\n\udcff': not listed in the manifest")


@pytest.mark.parametrize("name", ["more", "graphs/more"])
def test_a_folder_nobody_vouches_for_is_refused(bundle_path: Path, name: str):
    (bundle_path / name).mkdir()

    assert _refusal(FileUnexpected, bundle_path).file == name


def test_a_truncated_file_is_refused_with_both_sizes(bundle_path: Path):
    content = (bundle_path / GRAPH).read_bytes()
    _overwrite(bundle_path / GRAPH, content[:-3])

    refusal = _refusal(SizeMismatch, bundle_path)

    assert refusal.file == GRAPH
    assert f"expected {len(content)} bytes, found {len(content) - 3}" in str(refusal)


def test_a_changed_file_is_refused_with_both_digests(bundle_path: Path):
    content = (bundle_path / GRAPH).read_bytes()
    _overwrite(bundle_path / GRAPH, content[::-1])

    refusal = _refusal(DigestMismatch, bundle_path)

    assert refusal.file == GRAPH
    assert hashlib.sha256(content).hexdigest() in str(refusal)
    assert hashlib.sha256(content[::-1]).hexdigest() in str(refusal)


def test_an_edited_manifest_is_refused(bundle_path: Path):
    raw = (bundle_path / "manifest.json").read_bytes()
    _overwrite(bundle_path / "manifest.json", raw.replace(b'"macs": 20\n', b'"macs": 10\n'))

    refusal = _refusal(DigestMismatch, bundle_path)

    assert refusal.file == "manifest.json"
    assert hashlib.sha256(raw).hexdigest() in str(refusal)


def test_a_huge_manifest_is_refused_before_it_is_read(bundle_path: Path):
    _overwrite(bundle_path / "manifest.json", b"")
    os.truncate(bundle_path / "manifest.json", 2**40)

    refusal = _refusal(SizeMismatch, bundle_path)

    assert "manifest.json: expected at most 4194304 bytes" in str(refusal)


def test_a_file_that_grew_beyond_its_listed_size_is_refused_before_it_is_read(bundle_path: Path):
    _overwrite(bundle_path / "calibration.npz", b"")
    os.truncate(bundle_path / "calibration.npz", 2**40)

    assert _refusal(SizeMismatch, bundle_path).file == "calibration.npz"


@pytest.mark.parametrize("name", [GRAPH, "calibration.npz", "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("is_inside", [True, False], ids=["inside", "outside"])
def test_a_link_is_refused_wherever_it_leads(
    bundle_path: Path, tmp_path: Path, name: str, is_inside: bool
):
    target = bundle_path / "graphs" / "gather.onnx" if is_inside else tmp_path / "elsewhere"
    if not is_inside:
        shutil.copy(bundle_path / name, target)
    (bundle_path / name).unlink()
    (bundle_path / name).symlink_to(target)

    assert _refusal(FileNotRegular, bundle_path).file == name


def test_a_linked_folder_of_graphs_is_refused(bundle_path: Path, tmp_path: Path):
    (bundle_path / "graphs").rename(tmp_path / "graphs")
    (bundle_path / "graphs").symlink_to(tmp_path / "graphs", target_is_directory=True)

    assert _refusal(FileNotRegular, bundle_path).file == "graphs"


def test_a_pipe_is_refused_without_waiting_for_its_writer(bundle_path: Path):
    (bundle_path / GRAPH).unlink()
    os.mkfifo(bundle_path / GRAPH)

    assert _refusal(FileNotRegular, bundle_path).file == GRAPH


@pytest.mark.parametrize("place", ["tiny/2", "tiny/01", "huge/1"])
def test_a_bundle_in_another_place_than_its_manifest_says_is_refused(
    bundle_path: Path, tmp_path: Path, place: str
):
    moved = tmp_path / "moved" / place
    moved.parent.mkdir(parents=True)
    bundle_path.rename(moved)

    refusal = _refusal(BundleMisplaced, moved)

    assert f"the manifest says tiny/1, found in {place}" in str(refusal)


def test_what_the_operating_system_refuses_is_told_as_such(tmp_path: Path):
    refusal = _refusal(BundleUnreadable, tmp_path / ("x" * 300))

    assert "File name too long" in str(refusal)
