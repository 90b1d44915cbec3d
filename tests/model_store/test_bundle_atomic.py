import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_store.calibration import Calibration
from model_store.catalog import Catalog
from model_store.errors import BundleExists
from model_store.manifest import ManifestDraft
from model_store.reader import open_bundle
from model_store.writer import write_bundle

GRAPH = "graphs/trunk-0.onnx"


class HeldWriter:
    """A bundle's writer in a thread, stopped at one graph until `release`."""

    def __init__(self, fifo: Path, write: Callable[[], Path]) -> None:
        os.mkfifo(fifo)
        self.errors: list[Exception] = []
        self._write = write
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._feed = fifo.open("wb")  # returns once the writer has opened the other end

    def _run(self) -> None:
        try:
            self._write()
        except (BundleExists, OSError) as error:
            self.errors.append(error)

    def release(self) -> None:
        self._feed.close()
        self._thread.join()


@pytest.fixture
def held_writer(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_graphs: Callable[[ManifestDraft], dict[str, bytes]],
    make_calibration: Callable[..., Calibration],
) -> Iterator[HeldWriter]:
    """A writer of `tiny@1` into `tmp_path / "root"` that waits in the middle."""
    draft, fifo = make_draft(), tmp_path / "fifo"
    files: dict[str, Path | bytes] = {**make_graphs(draft), GRAPH: fifo}
    root, calibration = tmp_path / "root", make_calibration()
    writer = HeldWriter(fifo, lambda: write_bundle(root, draft, files, calibration))
    yield writer
    writer.release()


def test_nobody_sees_a_bundle_before_it_is_whole(held_writer: HeldWriter, tmp_path: Path):
    while_writing = Catalog([tmp_path / "root"]).names()

    held_writer.release()

    assert while_writing == ()
    assert Catalog([tmp_path / "root"]).names() == ("tiny",)
    assert held_writer.errors == []


def test_of_two_writers_the_first_to_finish_wins(
    held_writer: HeldWriter,
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_bundle: Callable[[Path, ManifestDraft], Path],
):
    path = make_bundle(tmp_path / "root", make_draft())

    held_writer.release()

    (error,) = held_writer.errors
    assert isinstance(error, BundleExists)
    assert open_bundle(path).file(GRAPH).read_bytes() != b""
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["tiny"]


def test_a_place_that_vanished_meanwhile_is_an_error_of_its_own(
    held_writer: HeldWriter, tmp_path: Path
):
    (tmp_path / "root" / "tiny").rmdir()

    held_writer.release()

    (error,) = held_writer.errors
    assert isinstance(error, FileNotFoundError)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_killed_writer_leaves_nothing_that_a_catalog_sees(
    tmp_path: Path,
    make_draft: Callable[..., ManifestDraft],
    make_graphs: Callable[[ManifestDraft], dict[str, bytes]],
    make_calibration: Callable[..., Calibration],
    make_bundle: Callable[[Path, ManifestDraft], Path],
):
    draft, root, fifo = make_draft(), tmp_path / "root", tmp_path / "fifo"
    os.mkfifo(fifo)
    files = {**make_graphs(draft), GRAPH: fifo}
    child = multiprocessing.get_context("spawn").Process(
        target=write_bundle, args=(root, draft, files, make_calibration())
    )
    child.start()
    with fifo.open("wb"):  # the child is in the middle of its files
        child.kill()
        child.join()

    left_over = [path.name for path in root.iterdir() if path.name.startswith(".")]

    assert len(left_over) == 1
    assert Catalog([root]).names() == ()
    assert open_bundle(make_bundle(root, draft)).manifest.version == 1
