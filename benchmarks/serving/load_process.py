"""Starts the generator on a job and reads what it recorded."""

import subprocess
import sys
from dataclasses import dataclass

from benchmarks.serving.generator import Job, Watched
from benchmarks.serving.recording import Recording


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What was recorded, and how the recording itself went."""

    recording: Recording
    watched: Watched


def run_job(job: Job) -> Run:
    """Run the generator in a process of its own.

    Raises:
        subprocess.CalledProcessError: It failed; its message went to standard error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.generator"],
        input=job.model_dump_json().encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    watched = Watched.model_validate_json(done.stdout)
    return Run(Recording.read(job.output), watched)
