"""Real files: hostile, broken and unusual ones, and photographs."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.images, pytest.mark.slow, pytest.mark.timeout(120)]

MAX_PEAK_MIB = 1024
TAKEN = ("JPEG ", "MPO ", "PNG ", "WEBP ", "GIF ", "BMP ", "TIFF ")

# A process of its own, so that a crash is seen as one and its peak of memory is the decoder's.
DECODE_EACH = """
import json, resource, sys, time
from pathlib import Path
from service.errors import ImageUndecodable, PayloadTooLarge
from service.pixels import ImageSize, decode_image, settle_pillow

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
settle_pillow()
for path in sys.stdin.read().splitlines():
    began_at = time.process_time()
    try:
        size = ImageSize(height=32, width=48)
        pixels = decode_image(Path(path).read_bytes(), size=size, max_pixels=25_000_000)
        outcome = list(pixels.shape)
    except (ImageUndecodable, PayloadTooLarge) as error:
        outcome = type(error).__name__
    # Not ru_maxrss, which a process inherits from the one that started it.
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    seconds = time.process_time() - began_at
    print(json.dumps([path, outcome, seconds, int(peak.split()[1]) / 1024]))
"""


@dataclass(frozen=True)
class Decoded:
    outcome: list[int] | str  # the shape, or an error's name
    seconds: float
    peak_mib: float  # of the process, so far


def decode_each(paths: list[Path]) -> dict[Path, Decoded]:
    """Decode in another process."""
    done = subprocess.run(
        [sys.executable, "-c", DECODE_EACH],
        input="\n".join(map(str, paths)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(path): Decoded(*columns) for path, *columns in rows}


def test_every_odd_file_gives_pixels_or_an_error_in_bounded_time_and_memory(image_folder: Path):
    folder = image_folder / "odd-images"
    with (folder / "INDEX.tsv").open(encoding="utf-8", newline="") as index:
        rows = {folder / row["file"]: row for row in csv.DictReader(index, delimiter="\t")}

    outcomes = decode_each(sorted(rows))

    assert set(outcomes) == set(rows)
    assert max(decoded.seconds for decoded in outcomes.values()) < 5
    assert max(decoded.peak_mib for decoded in outcomes.values()) < MAX_PEAK_MIB
    for path, decoded in outcomes.items():
        pillow = rows[path]["pillow_13.0.0_result"]
        is_image = pillow.startswith(TAKEN) and "loaded" in pillow
        is_decoded = decoded.outcome == [32, 48, 3]
        assert is_decoded == is_image, f"{path}: {decoded.outcome}, Pillow: {pillow}"


def test_every_photograph_is_decoded(image_folder: Path):
    photographs = sorted((image_folder / "imagenet-sample").glob("*.[Jj][Pp]*"))

    outcomes = decode_each(photographs)

    assert len(outcomes) == len(photographs) > 0
    assert all(decoded.outcome == [32, 48, 3] for decoded in outcomes.values())
