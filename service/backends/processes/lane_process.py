"""One lane process as its parent sees it: started, asked, started again when it has died."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from service.backends.processes.jobs import MAX_BYTES, message_of
from service.backends.processes.orders import Orders, ServedBundle
from service.errors import BackendFailed

_NS: Final = 1e-9
_START_S: Final = 120.0  # to open every bundle in
# Until a process that hung up is killed: long enough to say why, and an event loop may wait for it.
_LAST_WORDS_S: Final = 0.2

logger = logging.getLogger(__name__)


class LaneProcess:
    """Runs one stage at a time; used by one thread at a time.

    Args:
        index: Which, for the log.
        bundles: That it opens.
        arena: Descriptor of the memory for features.
        num_threads: That one stage is spread over.
        niceness: By how much it stands back.
    """

    def __init__(
        self,
        index: int,
        bundles: Sequence[ServedBundle],
        *,
        arena: int,
        num_threads: int,
        niceness: int,
    ) -> None:
        self.index = index
        self._bundles = tuple(bundles)
        self._arena = arena
        self._num_threads = num_threads
        self._niceness = niceness
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._lifeline = -1
        self._is_ready = False
        self._is_closed = False

    def start(self) -> None:
        """Start it, without waiting until it is there.

        Raises:
            BackendFailed: It was let go, or the system starts no process.
        """
        if self._is_closed:
            raise BackendFailed(f"{self} was let go")
        if self._connection is not None:
            self._end(_LAST_WORDS_S)
        try:
            self._connection = self._launch()
        except OSError as error:
            self._end()
            raise BackendFailed(f"{self} cannot be started: {error}") from error

    def wait_until_ready(self) -> None:
        """Wait until it can run stages.

        Raises:
            BackendFailed: It cannot; it is gone then.
        """
        connection = self._connection
        if connection is None:
            raise BackendFailed(f"{self} is gone")
        try:
            reply = connection.recv(MAX_BYTES)
        except TimeoutError:
            self._end()
            raise BackendFailed(f"{self} was not ready within {_START_S:.0f} s") from None
        except OSError:
            reply = b""
        message = message_of(reply) if reply else self._end(_LAST_WORDS_S)
        if message is not None:
            self._end()
            raise BackendFailed(f"{self} cannot run: {message}")
        connection.settimeout(None)
        self._is_ready = True

    def fileno(self) -> int:
        """Return the descriptor on which it answers; -1 while there is no process."""
        return -1 if self._connection is None else self._connection.fileno()

    def waited_s(self) -> float:
        """Return for how long it was ready to run and had no core; 0 where nobody knows.

        Source: the kernel's ``Documentation/scheduler/sched-stats.rst``, "/proc/<pid>/schedstat".
        """
        if self._process is None:
            return 0.0
        try:
            counts = Path(f"/proc/{self._process.pid}/schedstat").read_text(encoding="ascii")
            return int(counts.split()[1]) * _NS
        except (OSError, ValueError, IndexError):
            return 0.0

    def send(self, frame: bytes) -> None:
        """Have a stage run.

        Raises:
            BackendFailed: There is no process that runs stages, or the batch is beyond all measure.
        """
        if self._connection is None or not self._is_ready:
            raise BackendFailed(f"{self} is gone")
        if len(frame) > MAX_BYTES:
            raise BackendFailed(f"a stage that takes {len(frame)} bytes to describe is not run")
        try:
            self._connection.send(frame)
        except OSError as error:
            raise BackendFailed(self._end(_LAST_WORDS_S)) from error

    def wait(self) -> None:
        """Wait for the stage that was sent.

        Raises:
            BackendFailed: It went wrong, or the process died over it.
        """
        connection = self._connection
        try:
            reply = b"" if connection is None else connection.recv(MAX_BYTES)
        except OSError:
            reply = b""
        message = message_of(reply) if reply else self._end(_LAST_WORDS_S)
        if message is not None:
            raise BackendFailed(message)

    def close(self) -> None:
        """Let it go, and wait until it is gone."""
        self._is_closed = True
        self._end()

    def __str__(self) -> str:
        return f"lane process {self.index}"

    def _launch(self) -> socket.socket:
        """Start the process and return the connection to it."""
        with ExitStack() as theirs, ExitStack() as undo:
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.enter_context(there)
            undo.enter_context(here)
            reader, self._lifeline = os.pipe()
            theirs.callback(os.close, reader)
            orders = Orders(
                bundles=self._bundles,
                num_threads=self._num_threads,
                niceness=self._niceness,
                connection=there.fileno(),
                arena=self._arena,
                lifeline=reader,
            )
            self._process = subprocess.Popen(  # noqa: S603 - our own module, told in JSON
                [sys.executable, "-m", "service.backends.processes", orders.model_dump_json()],
                pass_fds=(orders.connection, orders.arena, orders.lifeline),
                stdin=subprocess.DEVNULL,
            )
            here.settimeout(_START_S)
            undo.pop_all()
            return here

    def _end(self, patience_s: float = 0.0) -> str:
        """See to it that it is gone; return how it went.

        Args:
            patience_s: So long it may take to leave by itself.
        """
        self._is_ready = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it
            connection.close()
        lifeline, self._lifeline = self._lifeline, -1
        process, self._process = self._process, None
        status = None if process is None else _status_of(process, patience_s)
        if lifeline >= 0:
            os.close(lifeline)  # not before: nobody says another word without it
        if status is None:
            return f"{self} is gone"
        if not self._is_closed:
            logger.error("%s ended with status %d", self, status)
        return f"{self} ended with status {status}"


def _status_of(process: subprocess.Popen[bytes], patience_s: float) -> int:
    """Return how a process ended, which it does by itself or is made to."""
    try:
        return process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
