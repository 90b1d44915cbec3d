"""Opens a bundle, or says which file of it is not what the manifest vouches for.

Digests tell damage and mix-ups, not forgery: whoever can replace every file can replace the
manifest too. So nothing here trusts it more than its schema: sizes are checked before bytes are
read, no link is followed, nothing is unpickled, and what is code is not opened unless asked for.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from model_store.calibration import Calibration
from model_store.costs import ExitCosts
from model_store.errors import (
    BundleIncomplete,
    BundleMisplaced,
    BundleUnreadable,
    CalibrationInvalid,
    DigestMismatch,
    ExecutableRefused,
    FileMissing,
    FileNotRegular,
    FileUnexpected,
    NotABundle,
    SizeMismatch,
)
from model_store.layout import (
    CALIBRATION_FILE,
    GRAPHS_FOLDER,
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    manifest_digest_line,
)
from model_store.manifest import FileDigest, Manifest
from model_store.manifest_json import parse_manifest

_HERE: Final = "."  # the bundle's directory itself, as the file at fault


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle whose every file was found to be what the manifest says."""

    path: Path
    manifest: Manifest
    calibration: Calibration
    digest: str  # hexadecimal SHA-256 of manifest.json, and through it of every file

    @property
    def costs(self) -> ExitCosts:
        """Price of every exit."""
        return self.manifest.costs

    def file(self, name: str) -> Path:
        """Return where a file that the manifest lists lies.

        Raises:
            KeyError: It does not list it.
        """
        if name not in self.manifest.files:
            raise KeyError(f"{self.path}: the manifest lists no {name!r}")
        return self.path / name


def open_bundle(path: Path, *, allow_executable: bool = False) -> Bundle:
    """Return the bundle in a directory after checking every byte of it.

    Args:
        path: `<root>/<name>/<version>`.
        allow_executable: Take a bundle whose graphs are code, too.

    Raises:
        BundleRefused: Something is not as it was written; `model_store.errors` says what it can be.
    """
    # Without resolving links: what the directories are called is part of what is checked.
    bundle = Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps "..", resolve follows links
    try:
        return _open(bundle, allow_executable=allow_executable)
    except OSError as error:
        raise BundleUnreadable(bundle, str(error.filename or _HERE), f"{error.strerror}") from error


def _open(bundle: Path, *, allow_executable: bool) -> Bundle:
    raw = _read_manifest(bundle)
    digest = hashlib.sha256(raw).hexdigest()
    _check_own_digest(bundle, digest)
    manifest = parse_manifest(bundle, raw)
    if manifest.executable and not allow_executable:
        raise ExecutableRefused(
            bundle, MANIFEST_FILE, f"runtime {manifest.runtime} is code: not allowed here"
        )
    _check_place(bundle, manifest)
    _check_inventory(bundle, manifest)
    for name, expected in manifest.files.items():
        _check_file(bundle, name, expected)
    return Bundle(bundle, manifest, _read_calibration(bundle, manifest), digest)


def _read_manifest(bundle: Path) -> bytes:
    if not bundle.is_dir():
        raise NotABundle(bundle, _HERE, "expected a directory")
    if not os.path.lexists(bundle / MANIFEST_FILE):
        raise NotABundle(bundle, MANIFEST_FILE, "expected a manifest, found none")
    if not os.path.lexists(bundle / MANIFEST_DIGEST_FILE):
        raise BundleIncomplete(bundle, MANIFEST_DIGEST_FILE, "missing: it is written last")
    raw = _read_start(bundle, MANIFEST_FILE, MAX_MANIFEST_BYTES + 1)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise SizeMismatch(
            bundle, MANIFEST_FILE, f"expected at most {MAX_MANIFEST_BYTES} bytes, found more"
        )
    return raw


def _check_own_digest(bundle: Path, digest: str) -> None:
    expected = manifest_digest_line(digest)
    found = _read_start(bundle, MANIFEST_DIGEST_FILE, len(expected) + 1)
    if found != expected:
        raise DigestMismatch(
            bundle,
            MANIFEST_FILE,
            f"its line is {expected!r}, {MANIFEST_DIGEST_FILE} says {found!r}",
        )


def _check_place(bundle: Path, manifest: Manifest) -> None:
    expected = f"{manifest.name}/{manifest.version}"
    found = f"{bundle.parent.name}/{bundle.name}"
    if found != expected:
        raise BundleMisplaced(bundle, _HERE, f"the manifest says {expected}, found in {found}")


def _check_inventory(bundle: Path, manifest: Manifest) -> None:
    expected = {MANIFEST_FILE, MANIFEST_DIGEST_FILE, *manifest.files}
    found = set()
    for name in _walk(bundle):
        if name not in expected:
            raise FileUnexpected(bundle, name, "not listed in the manifest")
        found.add(name)
    for name in sorted(expected - found):
        raise FileMissing(bundle, name, "listed in the manifest, not found")


def _walk(bundle: Path) -> Iterator[str]:
    """Yield everything in the bundle, relative to it, but the one directory it may have."""
    with os.scandir(bundle) as entries:
        for entry in entries:
            if entry.name != GRAPHS_FOLDER:
                yield entry.name
            elif not entry.is_dir(follow_symlinks=False):
                raise FileNotRegular(bundle, GRAPHS_FOLDER, "expected a directory")
            else:
                with os.scandir(entry) as graphs:
                    yield from (f"{GRAPHS_FOLDER}/{graph.name}" for graph in graphs)


def _check_file(bundle: Path, name: str, expected: FileDigest) -> None:
    with _open_regular(bundle, name) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes != expected.size_bytes:
            raise SizeMismatch(
                bundle, name, f"expected {expected.size_bytes} bytes, found {size_bytes}"
            )
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.sha256:
        raise DigestMismatch(bundle, name, f"expected SHA-256 {expected.sha256}, found {found}")


def _read_calibration(bundle: Path, manifest: Manifest) -> Calibration:
    raw = _read_start(bundle, CALIBRATION_FILE, manifest.files[CALIBRATION_FILE].size_bytes)
    try:
        calibration = Calibration.from_bytes(raw)
        calibration.check_fits(num_exits=len(manifest.stages), num_classes=len(manifest.labels))
    except ValueError as error:
        raise CalibrationInvalid(bundle, CALIBRATION_FILE, str(error)) from error
    return calibration


def _read_start(bundle: Path, name: str, max_bytes: int) -> bytes:
    with _open_regular(bundle, name) as file:
        return file.read(max_bytes)


def _open_regular(bundle: Path, name: str) -> BufferedReader:
    """Open a plain file without following a link or waiting for a pipe's writer."""
    path = bundle / name
    if not stat.S_ISREG(path.lstat().st_mode):
        raise FileNotRegular(bundle, name, "expected a plain file, found a link or something else")
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
