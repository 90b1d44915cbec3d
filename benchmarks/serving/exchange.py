"""Many connections to one server on one epoll: the part that both kinds of load share.

Written for microseconds: no coroutine, no buffer object, no parsing beyond where an answer ends.
"""

import errno
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from benchmarks.serving.replies import Reply, read_reply

_RECEIVE_BYTES: Final = 65_536
_SEND_BUFFER_BYTES: Final = 1 << 19
# Few at a time: whoever sends on schedule looks at the clock between two lots.
_EVENTS_AT_ONCE: Final = 16
_READ: Final = select.EPOLLIN
_BOTH: Final = select.EPOLLIN | select.EPOLLOUT
NO_SLOT: Final = -1  # of a connection without a request in flight; an int, for the hottest loop


class Connection:
    """One keep-alive connection with at most one request in flight; owned by its `Exchange`."""

    __slots__ = ("is_fresh", "received", "request", "slot", "socket", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.request: bytes = b""
        self.slot = NO_SLOT
        self.received = b""
        self.unsent: memoryview | None = None
        self.is_fresh = True  # has answered nothing yet

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent on it."""
        return self.socket.fileno() >= 0


Settled = Callable[[Connection, Reply | None, float], None]
"""Called with the answer, or None where the connection was lost, and the instant."""


class Exchange:
    """Sends requests and hands back answers; decides nothing.

    Args:
        port: On 127.0.0.1.
        settled: Called once for every slot sent.
    """

    def __init__(self, port: int, settled: Settled) -> None:
        self._address = ("127.0.0.1", port)
        self._settled = settled
        self._epoll = select.epoll()
        self._by_fileno: dict[int, Connection] = {}
        self.num_resent = 0

    @property
    def num_connections(self) -> int:
        """Open now."""
        return len(self._by_fileno)

    def watch(self, fileno: int) -> None:
        """Wake up, too, when a descriptor becomes readable."""
        self._epoll.register(fileno, _READ | select.EPOLLET)

    def open(self) -> Connection:
        """Open a connection without waiting for it to stand.

        Raises:
            OSError: There are no more to be had.
        """
        connection = Connection(self._connect())
        self._register(connection)
        return connection

    def _connect(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)  # noqa: FBT003 - the socket's own method
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        code = sock.connect_ex(self._address)
        if code not in {0, errno.EINPROGRESS}:
            sock.close()
            raise OSError(code, f"no connection to {self._address}")
        return sock

    def _register(self, connection: Connection) -> None:
        fileno = connection.socket.fileno()
        self._by_fileno[fileno] = connection
        self._epoll.register(fileno, _READ)

    def close(self, connection: Connection) -> None:
        """Close a connection; what is in flight on it is given up unsaid."""
        connection.slot = NO_SLOT
        # Closing takes it off the epoll.
        if self._by_fileno.pop(connection.socket.fileno(), None) is not None:
            connection.socket.close()

    def close_all(self) -> None:
        """Close every connection."""
        for connection in tuple(self._by_fileno.values()):
            self.close(connection)
        self._epoll.close()

    def send(self, connection: Connection, request: bytes, slot: int) -> None:
        """Send a request; its answer is handed back under `slot`."""
        connection.request = request
        connection.slot = slot
        try:
            sent = connection.socket.send(request)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(connection, time.monotonic())
            return
        if sent < len(request):
            connection.unsent = memoryview(request)[sent:]
            self._epoll.modify(connection.socket.fileno(), _BOTH)

    def wait(self, limit_s: float) -> None:
        """Handle what has come in; return after `limit_s` at the latest."""
        for fileno, event in self._epoll.poll(limit_s, _EVENTS_AT_ONCE):
            connection = self._by_fileno.get(fileno)
            if connection is None:
                continue
            if event & select.EPOLLOUT and connection.unsent is not None:
                self._send_rest(connection)
            if event & ~select.EPOLLOUT:
                self._receive(connection)

    def _send_rest(self, connection: Connection) -> None:
        rest = connection.unsent
        if rest is None:
            return
        try:
            rest = rest[connection.socket.send(rest) :]
        except BlockingIOError:
            return
        except OSError:
            self._lose(connection, time.monotonic())
            return
        connection.unsent = rest if len(rest) else None
        if connection.unsent is None:
            self._epoll.modify(connection.socket.fileno(), _READ)

    def _receive(self, connection: Connection) -> None:
        try:
            received = connection.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        now = time.monotonic()
        if not received:
            self._lose(connection, now)
            return
        if connection.received:
            received = connection.received + received
        reply = read_reply(received)
        if reply is None:
            connection.received = received
            return
        connection.received = b""
        self._finish(connection, reply, now)

    def _finish(self, connection: Connection, reply: Reply, now: float) -> None:
        connection.is_fresh = False
        if reply.is_last or connection.unsent is not None:
            # Handed back closed: whoever wants to send on opens another. An answer that came
            # before the whole request was sent leaves a connection that nobody can use.
            slot = connection.slot
            self.close(connection)
            connection.slot = slot
        self._settled(connection, reply, now)

    def _lose(self, connection: Connection, now: float) -> None:
        slot = connection.slot
        is_unused = not connection.received and not connection.is_fresh
        self.close(connection)
        if slot == NO_SLOT:
            return
        if is_unused:
            # The server closed an idle connection just as it was used: any client tries again.
            self.num_resent += 1
            connection.socket = self._connect()
            connection.is_fresh = True
            connection.unsent = None
            self._register(connection)
            self.send(connection, connection.request, slot)
            return
        connection.slot = slot
        self._settled(connection, None, now)
