"""Starts the server as a user would, in a process of its own, and reads what it costs."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.process import free_port, wait_until_ready


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server."""

    url: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of the process, to read or to signal."""
        return self.process.pid

    def returncode(self) -> int | None:
        """Return the exit status; None while it runs."""
        return self.process.returncode

    def cpu_seconds(self) -> float:
        """Return user and system time of the process so far, all threads together."""
        # The name in brackets may hold spaces; utime and stime are the 14th and 15th fields.
        after_name = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        fields = after_name.split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(
    environment: Mapping[str, str] | None = None, *, module: Sequence[str] = ("service",)
) -> Iterator[ServerProcess]:
    """Start a server on a free port, wait until it is ready, and stop it at the end.

    Args:
        environment: Settings on top of this process's.
        module: What ``python -m`` runs, with its arguments; it listens on ``ANYTIME_PORT``.

    Raises:
        ServerFailed: The server ended, or was not ready in time.
    """
    port = free_port()
    settings = {**os.environ, "ANYTIME_PORT": str(port), "ANYTIME_LOG_LEVEL": "warning"}
    process = subprocess.Popen(  # noqa: S603 - this interpreter, on modules named here
        [sys.executable, "-m", *module], env=settings | dict(environment or {})
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, f"{url}/health/ready")
        yield ServerProcess(url, port, process)
    finally:
        process.terminate()
        process.wait()
