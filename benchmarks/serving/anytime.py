"""Our own server under test: as it is meant to be, or one of its exits as a static model."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from urllib.parse import urlencode

from benchmarks.serving.process import free_port, start_process, stop_process, wait_until_ready
from benchmarks.serving.server import Answer, Endpoint, ServerFailed

NAME = "anytime"


class AnytimeProcess:
    """The server itself, shared by all that ask it; started by the first, stopped by the last.

    Args:
        module: What ``python -m`` runs, with its arguments; it listens on ``ANYTIME_PORT``.
        environment: Settings that are not defaults.
        log: File for what it prints.
    """

    def __init__(
        self,
        module: Sequence[str] = ("service",),
        environment: Mapping[str, str] | None = None,
        *,
        log: Path | None = None,
    ) -> None:
        self._module = module
        self.environment = dict(environment or {})
        self._log = log
        self._process: Popen[bytes] | None = None
        self._num_users = 0
        self.port = 0

    @property
    def pid(self) -> int:
        """Of the process.

        Raises:
            ServerFailed: It does not run.
        """
        if self._process is None:
            raise ServerFailed("the server does not run")
        return self._process.pid

    def take(self) -> None:
        """Start it if nobody has; return once it is ready."""
        self._num_users += 1
        if self._process is not None:
            return
        self.port = free_port()
        settings = {"ANYTIME_PORT": str(self.port), "ANYTIME_LOG_LEVEL": "warning"}
        command = [sys.executable, "-m", *self._module]
        self._process = start_process(command, {**settings, **self.environment}, log=self._log)
        wait_until_ready(self._process, f"http://127.0.0.1:{self.port}/health/ready")

    def leave(self) -> None:
        """Stop it if nobody else needs it."""
        self._num_users -= 1
        if self._num_users == 0 and self._process is not None:
            stop_process(self._process)
            self._process = None


class AnytimeServer:
    """`ServerUnderTest` for ours; what is one exit alone differs by its query only."""

    name = NAME

    def __init__(self, process: AnytimeProcess, exit_index: int | None) -> None:
        self._process = process
        self._is_started = False
        self.exit_index = exit_index

    @property
    def settings(self) -> Mapping[str, str]:
        """What is not a default."""
        return self._process.environment

    @property
    def pid(self) -> int:
        """Of the session's leader."""
        return self._process.pid

    def start(self) -> None:
        """Start the process unless it runs for another exit."""
        if not self._is_started:
            self._is_started = True
            self._process.take()

    def endpoint(self, deadline_ms: float | None) -> Endpoint:
        """Return `/classify` with this configuration's limits."""
        query: dict[str, str] = {"top_k": "1"}
        if self.exit_index is not None:
            query |= dict.fromkeys(("min_exit", "max_exit"), str(self.exit_index))
        if deadline_ms is not None:
            query["deadline_ms"] = f"{deadline_ms:g}"
        return Endpoint(self._process.port, f"/classify?{urlencode(query)}")

    def read(self, body: bytes) -> Answer:
        """Return what `/classify` answered."""
        try:
            said = json.loads(body)
            deadline, timing = said["deadline"], said["timing_ms"]
            return Answer(
                label_index=said["prediction"]["index"],
                exit_index=said["exit"]["index"],
                is_met=None if deadline is None else deadline["met"],
                queue_ms=timing["queue"],
                compute_ms=timing["compute"],
            )
        except (KeyError, TypeError) as missing:
            raise ValueError(f"no answer of /classify: {body[:200]!r}") from missing

    def stop(self) -> None:
        """Stop the process unless another exit needs it."""
        if self._is_started:
            self._is_started = False
            self._process.leave()
