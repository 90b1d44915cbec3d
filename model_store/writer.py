"""Writes a bundle whole or not at all: aside, flushed to the disk, then renamed."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from model_store.calibration import Calibration
from model_store.errors import BundleExists, BundleFilesDisagree
from model_store.layout import (
    ASIDE_PREFIX,
    CALIBRATION_FILE,
    GRAPHS_FOLDER,
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
    bundle_folder,
    manifest_digest_line,
)
from model_store.manifest import FileDigest, Manifest, ManifestDraft
from model_store.manifest_json import parse_manifest

_CHUNK_BYTES: Final = 2**20
_READ_ONLY: Final = 0o444
_JSON_INDENT: Final = 2


def write_bundle(
    root: Path, draft: ManifestDraft, files: Mapping[str, Path | bytes], calibration: Calibration
) -> Path:
    """Make a trained network servable.

    A reader sees the bundle complete or not at all: everything is written to a directory that no
    catalog looks into, every file and directory is flushed, and one rename makes it visible. After
    a crash that directory is left over, and may be deleted.

    Args:
        root: Of a model store; made if it is not there.
        draft: The manifest without digests, which are taken of what was written.
        files: Every graph that the draft names, no others; its content or where to copy it from.
        calibration: Of this network.

    Returns:
        The bundle's directory, `<root>/<name>/<version>`.

    Raises:
        BundleExists: This version is there already.
        BundleFilesDisagree: `files` or the calibration are not those of the draft.
        ManifestInvalid: The manifest would be one that no reader takes.
        OSError: A file cannot be read or written.
    """
    _check(draft, files, calibration)
    target = bundle_folder(root, draft.name, draft.version)
    if target.exists():
        raise BundleExists(f"{target} is there already: a changed bundle is a new version")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = root / f"{ASIDE_PREFIX}{draft.name}-{draft.version}-{secrets.token_hex(8)}"
    try:
        _fill(aside, draft, {**files, CALIBRATION_FILE: calibration.to_bytes()})
        _publish(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # gone already where it was renamed
    return target


def _check(
    draft: ManifestDraft, files: Mapping[str, Path | bytes], calibration: Calibration
) -> None:
    needed = set(draft.graph_files)
    if set(files) != needed:
        raise BundleFilesDisagree(
            f"{draft.name}@{draft.version}: missing {sorted(needed - set(files))}, "
            f"not in the manifest {sorted(set(files) - needed)}"
        )
    try:
        calibration.check_fits(num_exits=len(draft.stages), num_classes=len(draft.labels))
    except ValueError as error:
        raise BundleFilesDisagree(f"{draft.name}@{draft.version}: {error}") from error


def _fill(aside: Path, draft: ManifestDraft, files: Mapping[str, Path | bytes]) -> None:
    (aside / GRAPHS_FOLDER).mkdir(parents=True)
    digests = {name: _write(aside / name, files[name]) for name in sorted(files)}
    manifest = Manifest(**{**dict(draft), "files": digests})
    raw = manifest.model_dump_json(indent=_JSON_INDENT).encode() + b"\n"
    parse_manifest(aside, raw)  # what the reader would refuse is not written
    written = _write(aside / MANIFEST_FILE, raw)
    # Last: where this one is missing, whatever copied the bundle was interrupted.
    _write(aside / MANIFEST_DIGEST_FILE, manifest_digest_line(written.sha256))
    _flush_folder(aside / GRAPHS_FOLDER)
    _flush_folder(aside)


def _publish(aside: Path, target: Path) -> None:
    try:
        aside.rename(target)
    except OSError as error:
        if target.exists():  # another writer was faster: a directory that is not empty stays
            raise BundleExists(f"{target} was written meanwhile") from error
        raise
    _flush_folder(target.parent)
    _flush_folder(aside.parent)


def _write(path: Path, content: Path | bytes) -> FileDigest:
    """Write, flush and protect one file; digest what was written, not what was meant to be."""
    digest = hashlib.sha256()
    with path.open("xb") as sink:
        if isinstance(content, bytes):
            sink.write(content)
            digest.update(content)
        else:
            with content.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    sink.write(chunk)
                    digest.update(chunk)
        sink.flush()
        os.fsync(sink.fileno())
        size_bytes = sink.tell()
    path.chmod(_READ_ONLY)
    return FileDigest(sha256=digest.hexdigest(), size_bytes=size_bytes)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
