"""The server against the bare loop that runs the same stages again, by turns."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.overheads.call_log import calls_between
from benchmarks.overheads.measured_server import Demand, MeasuredServer


@dataclass(frozen=True, slots=True)
class Round:
    """One period, and its stages once more."""

    images: int  # that went through the last stage
    seconds: float
    server_cpu_s: float
    bare_cpu_s: float
    foreign_share: float

    @property
    def ratio(self) -> float:
        """CPU of the server over that of the loop."""
        return self.server_cpu_s / self.bare_cpu_s


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians of some rounds."""

    images_per_s: float
    server_ms: float  # CPU, an image
    bare_ms: float  # CPU, an image
    ratio: float
    foreign_share: float  # the largest

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> "Summary":
        """Return the medians."""
        return cls(
            images_per_s=median(r.images / r.seconds for r in rounds),
            server_ms=median(1000 * r.server_cpu_s / r.images for r in rounds),
            bare_ms=median(1000 * r.bare_cpu_s / r.images for r in rounds),
            ratio=median(r.ratio for r in rounds),
            foreign_share=max(r.foreign_share for r in rounds),
        )

    @property
    def beyond_us(self) -> float:
        """CPU microseconds an image that are not the stages'."""
        return 1000 * (self.server_ms - self.bare_ms)


def compare(
    server: MeasuredServer, demand: Demand, *, calls: Path, bundle: Path, rounds: int
) -> Summary:
    """Return what the server took beside the bare loop.

    Args:
        server: Recorded, see `recorded_server`.
        demand: What it is asked.
        calls: Where it takes down what it runs.
        bundle: Whose stages it runs.
        rounds: Periods, each followed by its replay.
    """
    return Summary.of([_round(server, demand, calls, bundle) for _ in range(rounds)])


def _round(server: MeasuredServer, demand: Demand, calls: Path, bundle: Path) -> Round:
    period = server.under(demand)
    ran = calls_between(calls, period.began_at, period.ended_at)
    window = ["--from", repr(period.began_at), "--until", repr(period.ended_at)]
    command = [sys.executable, "-m", "benchmarks.overheads.replay", str(calls)]
    done = subprocess.run(  # noqa: S603 - this interpreter
        [*command, *window, "--bundle", str(bundle)], check=True, stdout=subprocess.PIPE, text=True
    )
    return Round(
        images=int(np.sum(ran["rows"][ran["stage"] == ran["stage"].max()])),
        seconds=period.ended_at - period.began_at,
        server_cpu_s=period.server_cpu_s,
        bare_cpu_s=float(done.stdout),
        foreign_share=period.foreign_share,
    )
