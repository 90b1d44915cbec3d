"""What the files of a bundle are called and where they lie: `<root>/<name>/<version>/<file>`.

docs/bundle-format.md is normative and says why each is as it is.
"""

from pathlib import Path
from typing import Final

FORMAT_VERSION: Final = 1  # the only one this code writes and reads

MANIFEST_FILE: Final = "manifest.json"
MANIFEST_DIGEST_FILE: Final = "manifest.sha256"  # one line as `sha256sum manifest.json` prints it
CALIBRATION_FILE: Final = "calibration.npz"
GRAPHS_FOLDER: Final = "graphs"

# Lower case, so that two names which differ on one file system differ on all.
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]*$"
GRAPH_PATTERN: Final = rf"^{GRAPHS_FOLDER}/[a-z0-9][a-z0-9._-]*\.(onnx|pt)$"
VERSION_PATTERN: Final = r"^[1-9][0-9]{0,8}$"  # no leading zero: one version, one directory
MAX_VERSION: Final = 10**9 - 1  # the largest that the pattern takes

MAX_MANIFEST_BYTES: Final = 4 * 2**20  # 20 000 labels take a tenth of it
MAX_CALIBRATION_BYTES: Final = (
    2 * 2**30
)  # read whole; 50 000 images, 10 exits, 1 000 classes: 1 GiB

ASIDE_PREFIX: Final = ".aside-"  # of directories being written; no catalog looks behind a dot


def bundle_folder(root: Path, name: str, version: int) -> Path:
    """Return where a root keeps one version of one model."""
    return root / name / str(version)


def manifest_digest_line(digest: str) -> bytes:
    """Return the whole content of `manifest.sha256` for the manifest's digest."""
    return f"{digest}  {MANIFEST_FILE}\n".encode("ascii")
