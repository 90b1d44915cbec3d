"""Servers of a run: started when first needed, frozen while another one is under test."""

import signal
from collections.abc import Callable, Mapping

from benchmarks.serving.process import signal_session
from benchmarks.serving.server import ServerUnderTest

Build = Callable[[int | None], ServerUnderTest]
_Key = tuple[str, int | None]


class Fleet:
    """All servers of a run; owned by the grid.

    A frozen server (SIGSTOP) takes no processor time, and need not start anew for its next turn:
    servers take turns often, so that a drift of the machine hits all alike.

    Args:
        builders: By name.
        max_running: Sessions kept; beyond it the one that has waited longest is stopped.
    """

    def __init__(self, builders: Mapping[str, Build], max_running: int = 5) -> None:
        self._builders = builders
        self._max_running = max_running
        self._running: dict[_Key, ServerUnderTest] = {}  # in order of use

    def turn_to(self, name: str, exit_index: int | None) -> ServerUnderTest:
        """Return a server that runs while all others are frozen.

        Raises:
            ServerFailed: It does not start.
        """
        server = self._running.pop((name, exit_index), None)
        self._freeze_all()
        if server is None:
            self._make_room()
            server = self._builders[name](exit_index)
            # One that shares a running process must find it awake.
            self._wake(name)
            server.start()
        self._running[name, exit_index] = server
        signal_session(server.pid, signal.SIGCONT)
        for other in self._running.values():
            if other.pid != server.pid:
                signal_session(other.pid, signal.SIGSTOP)
        return server

    @property
    def sessions(self) -> tuple[int, ...]:
        """Of all servers, frozen ones too."""
        return tuple({server.pid for server in self._running.values()})

    def close(self) -> None:
        """Stop all."""
        while self._running:
            self._stop_one()

    def _freeze_all(self) -> None:
        for session in self.sessions:
            signal_session(session, signal.SIGSTOP)

    def _wake(self, name: str) -> None:
        for (other, _), server in self._running.items():
            if other == name:
                signal_session(server.pid, signal.SIGCONT)

    def _make_room(self) -> None:
        while len(self.sessions) >= self._max_running:
            self._stop_one()

    def _stop_one(self) -> None:
        # What shares a process with others frees nothing by leaving before them.
        sessions = [server.pid for server in self._running.values()]
        alone = (key for key, s in self._running.items() if sessions.count(s.pid) == 1)
        server = self._running.pop(next(alone, next(iter(self._running))))
        signal_session(server.pid, signal.SIGCONT)
        server.stop()
