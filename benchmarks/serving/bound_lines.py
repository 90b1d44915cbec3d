"""Has the bounds computed on the traces of a run, and reads them for the report."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from benchmarks.serving.bound import TraceBound
from benchmarks.serving.images import IMAGES_FILE
from benchmarks.serving.plan import DEADLINE_MS, OTHER_DEADLINES_MS

_FILE: Final = "bound.json"
_STAGE_TIMES_FILE: Final = "stage-times.json"


def compute_bounds(work: Path, *, front_end_us: float, stage_times: Path | None) -> None:
    """Write `bound.json` into a work folder, for all of its traces.

    Args:
        work: The folder.
        front_end_us: What one request costs before the engine; 0 makes the bound looser, no less
            true.
        stage_times: Measured already; None: measured now, with everything else at rest.
    """
    if stage_times is None:
        stage_times = work / _STAGE_TIMES_FILE
        if not stage_times.is_file():
            _python("benchmarks.serving.stage_times", "--out", str(stage_times))
    traces = sorted(str(path) for path in (work / "traces").glob("*.npz"))
    deadlines = [f"{ms:g}" for ms in (DEADLINE_MS, *OTHER_DEADLINES_MS)]
    _python(
        "benchmarks.serving.bound",
        *("--traces", *traces),
        *("--deadline-ms", *deadlines),
        *("--images", str(work / IMAGES_FILE)),
        *("--stage-times", str(stage_times)),
        *("--front-end-us", f"{front_end_us:g}"),
        *("--out", str(work / _FILE)),
    )


def read_bounds(work: Path) -> list[TraceBound]:
    """Return what `compute_bounds` wrote; nothing where it was not run."""
    path = work / _FILE
    if not path.is_file():
        return []
    return TypeAdapter(list[TraceBound]).validate_json(path.read_bytes())


def _python(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=sys.stderr)  # noqa: S603 - this interpreter
