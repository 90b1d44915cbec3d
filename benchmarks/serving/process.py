"""Starts and stops a server's processes, all servers alike: `nice -n 5`, a session of their own."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from benchmarks.serving.server import ServerFailed

_NICENESS: Final = "5"  # the generator runs at 0, so that its clock is right under overload
_ATTEMPT_S: Final = 0.2
_STOP_LIMIT_S: Final = 10.0
_SESSION_FIELD: Final = 3  # of /proc/<pid>/stat, counted from behind the name in brackets


def free_port() -> int:
    """Return a TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_process(
    command: Sequence[str], environment: Mapping[str, str], *, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a server at low priority, as the leader of a session.

    Args:
        command: Its own, without `nice`.
        environment: On top of this process's.
        log: File for what it prints; None: thrown away.
    """
    with (log or Path(os.devnull)).open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - commands are spelt out by the benchmarks
            ["nice", "-n", _NICENESS, *command],  # noqa: S607 - found on the path like any tool
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_until_ready(process: subprocess.Popen[bytes], url: str, *, limit_s: float = 180.0) -> None:
    """Return once `url` answers with success.

    Raises:
        ServerFailed: The process ended, or the time ran out.
    """
    for _ in range(round(limit_s / _ATTEMPT_S)):
        if process.poll() is not None:
            raise ServerFailed(f"the server ended with status {process.returncode}")
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        try:
            process.wait(_ATTEMPT_S)
        except subprocess.TimeoutExpired:
            continue
    raise ServerFailed(f"{url} did not answer within {limit_s:.0f} s")


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to leave, then end what is left of its session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # Workers of some servers outlive their parent.
    signal_session(process.pid, signal.SIGKILL)


def signal_session(session: int, number: signal.Signals) -> None:
    """Send a signal to every process of a session."""
    for pid in session_pids(session):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def session_pids(session: int) -> tuple[int, ...]:
    """Return the processes of a session, its leader among them."""
    return tuple(pid for pid, of in _sessions() if of == session)


def resident_bytes(session: int) -> int:
    """Return resident memory of a session's processes together; shared pages count each time."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid in session_pids(session):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * page
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def _sessions() -> list[tuple[int, int]]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append((int(folder.name), int(stat.rpartition(")")[2].split()[_SESSION_FIELD])))
    return found
