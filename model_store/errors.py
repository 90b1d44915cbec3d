"""Everything that can be wrong with a bundle, by the fact.

BundleError
├── BundleNotFound            no root of the catalog has it
├── StoreRootMissing          a root of the catalog is no directory
├── BundleExists              there is one at the place to be written
├── BundleFilesDisagree       the files to be written are not those of the manifest
└── BundleRefused             it is there, and is not to be trusted
    ├── NotABundle            a directory of something else, or none
    ├── BundleIncomplete      half-written: the manifest's own digest is missing
    ├── BundleUnreadable      the operating system refuses
    ├── FormatUnknown         written by a later version of this code
    ├── ManifestInvalid       not JSON, or not by the schema
    ├── ExecutableRefused     it holds code, and the caller takes data only
    ├── BundleMisplaced       its directories say another name or version
    ├── FileMissing
    ├── FileUnexpected        nobody vouches for it
    ├── FileNotRegular        a link, device or socket: what it leads to can change
    ├── SizeMismatch
    ├── DigestMismatch
    └── CalibrationInvalid    the arrays are not what they must be, or of another network
"""

from collections.abc import Sequence
from pathlib import Path


class BundleError(Exception):
    """Lets a caller catch whatever a bundle, a catalog or the writer may refuse."""


class BundleNotFound(BundleError):
    """Tells who asked for a model what there is instead.

    Attributes:
        reference: What was asked for, `name` or `name@version`.
        available: Every `name@version` of the catalog.
    """

    def __init__(self, reference: str, available: Sequence[str]) -> None:
        self.reference = reference
        self.available = tuple(available)
        there = ", ".join(self.available) or "none"
        super().__init__(f"no bundle {reference!r}; available: {there}")


class StoreRootMissing(BundleError):
    """A configured root is no directory: a typing error, not an empty store."""


class BundleExists(BundleError):
    """A bundle is immutable: a changed one is a new version."""


class BundleFilesDisagree(BundleError):
    """The files handed to the writer and those its manifest names differ."""


class BundleRefused(BundleError):
    """The bundle is not as it was written.

    Args:
        bundle: The bundle's directory.
        file: The file at fault, relative to it; "." for the directory itself.
        problem: What is wrong: what was expected and what was found.
    """

    def __init__(self, bundle: Path, file: str, problem: str) -> None:
        self.bundle = bundle
        self.file = file
        # A stranger's file name goes into logs: no line breaks, no bytes that are no text.
        shown = file if file.isprintable() else ascii(file)
        super().__init__(f"{bundle}: {shown}: {problem}")


class NotABundle(BundleRefused):
    """There is no manifest."""


class BundleIncomplete(BundleRefused):
    """The file that is written last is missing."""


class BundleUnreadable(BundleRefused):
    """Permission, input or output failed; the operating system's error is the cause."""


class FormatUnknown(BundleRefused):
    """The manifest's format version is none that this code knows."""


class ManifestInvalid(BundleRefused):
    """The manifest is too large, not JSON, or does not fit the schema."""


class ExecutableRefused(BundleRefused):
    """TorchScript archives are code: opening one runs what its author wrote."""


class BundleMisplaced(BundleRefused):
    """The directories are not named as the manifest says."""


class FileMissing(BundleRefused):
    """The manifest lists it, the directory does not have it."""


class FileUnexpected(BundleRefused):
    """The directory has it, the manifest does not list it."""


class FileNotRegular(BundleRefused):
    """Only plain files and directories are data that cannot lead elsewhere."""


class SizeMismatch(BundleRefused):
    """Truncated, written to, or beyond what is read at all."""


class DigestMismatch(BundleRefused):
    """Of the right size, with other bytes."""


class CalibrationInvalid(BundleRefused):
    """The hold-out arrays contradict themselves or the manifest."""
