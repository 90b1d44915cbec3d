"""Finds `name@version` in a list of roots; opening and judging it is the reader's."""

import re
from collections.abc import Sequence
from pathlib import Path

from model_store.errors import BundleNotFound, StoreRootMissing
from model_store.layout import (
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
    NAME_PATTERN,
    VERSION_PATTERN,
)

_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(VERSION_PATTERN)


class Catalog:
    """What there is to serve, looked up anew at every call: a root may gain bundles.

    Args:
        roots: Where bundles lie, as `<root>/<name>/<version>`. Where two have the same version of
            the same model the later one wins, so that an operator's root outranks what is shipped.

    Raises:
        StoreRootMissing: From every method: a root is no directory.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)

    def names(self) -> tuple[str, ...]:
        """Return the models of which there is a version, sorted."""
        return tuple(sorted(self._paths_by_model()))

    def versions(self, name: str) -> tuple[int, ...]:
        """Return the versions of a model, ascending; the last is its default.

        Raises:
            BundleNotFound: There is none.
        """
        paths_by_model = self._paths_by_model()
        if name not in paths_by_model:
            raise BundleNotFound(name, _references(paths_by_model))
        return tuple(sorted(paths_by_model[name]))

    def find(self, reference: str) -> Path:
        """Return the directory of a bundle.

        Args:
            reference: `name`, for the highest version, or `name@version`.

        Raises:
            BundleNotFound: There is no such bundle; the message names those there are.
        """
        paths_by_model = self._paths_by_model()
        name, at, version = reference.partition("@")
        paths = paths_by_model.get(name, {})
        if not at and paths:
            return paths[max(paths)]
        if at and _VERSION.fullmatch(version) and int(version) in paths:
            return paths[int(version)]
        raise BundleNotFound(reference, _references(paths_by_model))

    def _paths_by_model(self) -> dict[str, dict[int, Path]]:
        found: dict[str, dict[int, Path]] = {}
        for root in self._roots:
            if not root.is_dir():
                raise StoreRootMissing(f"{root} is no directory: expected a root of bundles")
            for model in _matching_folders(root, _NAME):
                for folder in _matching_folders(model, _VERSION):
                    if _looks_complete(folder):
                        version = int(folder.name)
                        found.setdefault(model.name, {})[version] = folder
        return found


def _matching_folders(parent: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [p for p in parent.iterdir() if pattern.fullmatch(p.name) and p.is_dir()]


def _looks_complete(folder: Path) -> bool:
    """Return whether a copy into the root came to its end, as far as names tell."""
    return all((folder / name).is_file() for name in (MANIFEST_FILE, MANIFEST_DIGEST_FILE))


def _references(paths_by_model: dict[str, dict[int, Path]]) -> tuple[str, ...]:
    return tuple(
        f"{name}@{version}"
        for name in sorted(paths_by_model)
        for version in sorted(paths_by_model[name])
    )
