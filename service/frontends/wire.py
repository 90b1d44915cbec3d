"""How two processes wake each other: short frames over a Unix socket, many of them in one call.

Pixels and answers lie in shared memory; a frame says which slot is meant. Passing slots by a system
call also orders memory between the two, which plain stores from Python do not promise everywhere.
"""

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Any, Final, TypeAlias

_FRAME: Final = Struct("<IId")  # what it is, which slot or how long a document, a number
_READ_BYTES: Final = 1 << 16
_MAX_DESCRIPTORS: Final = 64  # taken in one read
_MAX_DOCUMENT_BYTES: Final = 1 << 16


class Kind(IntEnum):
    """What a frame says. The first four are followed by a JSON document of their length."""

    HELLO = 1  # a front end introduces itself, with the memory of its slots
    WELCOME = 2  # the engine answers, with the board
    WINDOW = 3  # a window of a batch, with memory of its own
    RESERVE = 4  # terms under which windows will come
    SUBMIT = 10  # a slot holds a request
    ABANDON = 11  # nobody waits for a slot any more
    SETTLED = 12  # a slot holds its outcome; one for every SUBMIT
    LEAVE = 13  # nobody waits for a window any more
    WINDOW_DONE = 14  # a window holds its outcomes; one for every WINDOW
    RELEASE = 15  # a reservation is over
    LATE = 16  # how late an answer left, for the engine to learn from


_LAST_DOCUMENT: Final = Kind.RESERVE
Document: TypeAlias = dict[str, Any]
OnFrame: TypeAlias = Callable[[int, float], None]
OnDocument: TypeAlias = Callable[[Document, int | None], None]


class ProtocolBroken(Exception):
    """The other side sent what no version of this program sends."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """What happens when frames come, by kind; and when no more will."""

    frames: Mapping[int, OnFrame]
    documents: Mapping[int, OnDocument]  # told the document and the descriptor that came with it
    ended: Callable[[], None]  # once, however the connection ends


class Wire:
    """One end of a connection; belongs to the running event loop.

    What is sent in one turn of the loop goes out together at its end. Nothing blocks: what the
    socket does not take waits here, and is bounded by the slots it speaks of.

    Args:
        connection: Connected; not blocking from now on, and owned by this.
        handlers: Called from the loop.
    """

    def __init__(self, connection: socket.socket, handlers: Handlers) -> None:
        connection.settimeout(0.0)
        self._socket = connection
        self._handlers = handlers
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        self._outgoing = bytearray()
        self._queue: deque[tuple[bytes, int | None]] = deque()  # what the socket did not take yet
        self._is_flush_due = False
        self._is_writer_set = False
        self.is_closed = False
        self._loop.add_reader(connection, self._read)

    def send(self, kind: Kind, slot: int = 0, number: float = 0.0) -> None:
        """Send a frame at the end of this turn of the loop; nothing once the wire is closed."""
        if self.is_closed:
            return
        self._outgoing += _FRAME.pack(kind, slot, number)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def send_document(self, kind: Kind, document: Document, fd: int | None = None) -> None:
        """Send a document at once, with a descriptor if any; behind all that was sent before."""
        if self.is_closed:
            return
        text = json.dumps(document, allow_nan=False).encode()
        self._queue_outgoing()
        head = _FRAME.pack(kind, len(text), 0.0 if fd is None else 1.0)
        # A copy of its own, since the caller may close his before the socket takes it.
        self._queue.append((head + text, None if fd is None else os.dup(fd)))
        self._flush()

    def close(self) -> None:
        """End the connection, after what the socket takes at once; a second time does nothing."""
        if self.is_closed:
            return
        self._flush()
        self._end()

    def _queue_outgoing(self) -> None:
        if self._outgoing:
            self._queue.append((bytes(self._outgoing), None))
            self._outgoing.clear()

    def _flush(self) -> None:
        self._is_flush_due = False
        if self.is_closed:
            return
        self._queue_outgoing()
        try:
            while self._queue:
                self._send_first()
        except BlockingIOError:
            if not self._is_writer_set:
                self._is_writer_set = True
                self._loop.add_writer(self._socket, self._flush)
            return
        except OSError:
            self._end()
            return
        if self._is_writer_set:
            self._is_writer_set = False
            self._loop.remove_writer(self._socket)

    def _send_first(self) -> None:
        data, fd = self._queue[0]
        if fd is None:
            sent = self._socket.send(data)
        else:
            sent = socket.send_fds(self._socket, [data], [fd])
            os.close(fd)
        self._queue.popleft()
        if sent < len(data):
            self._queue.appendleft((data[sent:], None))

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, _READ_BYTES, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        self._descriptors.extend(fds)
        if not data:
            self._end()
            return
        self._received += data
        try:
            self._dispatch()
        except BaseException:
            # All there is, handlers' defects too: frames are half taken in, and who waits for the
            # other side is only told by the end. The loop hears of it.
            self._end()
            raise

    def _dispatch(self) -> None:
        start, received = 0, self._received
        while len(received) - start >= _FRAME.size and not self.is_closed:
            kind, slot, number = _FRAME.unpack_from(received, start)
            body_at = start + _FRAME.size
            if kind > _LAST_DOCUMENT:
                start = body_at
                self._handlers.frames[kind](slot, number)
                continue
            if slot > _MAX_DOCUMENT_BYTES:
                raise ProtocolBroken(f"a document of {slot} bytes")
            if len(received) < body_at + slot:
                break
            start = body_at + slot
            document = json.loads(received[body_at:start])
            self._handlers.documents[kind](document, self._take_descriptor(number))
        del received[:start]

    def _take_descriptor(self, number: float) -> int | None:
        if not number:
            return None
        if not self._descriptors:
            raise ProtocolBroken("the descriptor of a document did not come")
        return self._descriptors.popleft()

    def _end(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.remove_reader(self._socket)
        if self._is_writer_set:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        for fd in [*self._descriptors, *(fd for _, fd in self._queue if fd is not None)]:
            os.close(fd)
        self._descriptors.clear()
        self._queue.clear()
        self._handlers.ended()
