"""Bodies as they arrive: counted before and while they are read, and not waited for too long."""

import asyncio
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from starlette.types import Receive

from service.api.hangup import ClientGone
from service.errors import BadRequest, Overloaded, PayloadTooLarge, RequestTimeout

_ROOM_AGAIN_S: Final = 1.0  # about as long as the largest bodies are held
_MAX_LENGTH_DIGITS: Final = 18


class BodySink(Protocol):
    """Takes a body in as it comes."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes in."""
        ...


@dataclass(frozen=True, slots=True)
class Arriving:
    """A body that is on its way."""

    receive: Receive
    declared: bytes | None  # its Content-Length, as sent


class WholeBody:
    """Keeps a body as it is."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes in."""
        self._chunks.append(chunk)

    def joined(self) -> bytes:
        """Return all of it; the pieces are given up."""
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        return body


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What one body may take."""

    max_bytes: int
    timeout_s: float  # for all of it


class BufferAccount(AbstractContextManager["BufferAccount"]):
    """What one request holds of the memory for bodies, until the block ends.

    Made by `BufferLedger.account`.
    """

    __slots__ = ("_ledger", "held_bytes")

    def __init__(self, ledger: "BufferLedger") -> None:
        self._ledger = ledger
        self.held_bytes = 0

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Hold nothing any more; a second time does nothing."""
        held_bytes, self.held_bytes = self.held_bytes, 0
        self._ledger.give_back(held_bytes)

    def hold(self, num_bytes: int) -> None:
        """Hold so many bytes in all, if that is more than now.

        Raises:
            Overloaded: All bodies together would take too much.
        """
        more = max(0, num_bytes - self.held_bytes)
        self._ledger.take(more)
        self.held_bytes += more


class BufferLedger:
    """Memory for all bodies together; without it a few hundred large ones end the process.

    Args:
        max_bytes: At least what the largest single body may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free_bytes = max_bytes

    def take(self, num_bytes: int) -> None:
        """Take so many bytes more.

        Raises:
            Overloaded: There are not as many.
        """
        if num_bytes > self._free_bytes:
            raise Overloaded(retry_after_s=_ROOM_AGAIN_S)
        self._free_bytes -= num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Take so many bytes no longer."""
        self._free_bytes += num_bytes

    def account(self) -> BufferAccount:
        """Hold what a request needs until the block ends."""
        return BufferAccount(self)


def take_body(
    body: bytes, declared: bytes | None, limits: BodyLimits, account: BufferAccount
) -> None:
    """Hold a body that is there already to what `receive_body` would.

    Args:
        body: All of it.
        declared: Its Content-Length, as sent.
        limits: What it may take.
        account: Pays for it.

    Raises:
        PayloadTooLarge: It is too large.
        Overloaded: There is no memory for it now.
    """
    if declared is not None:
        _check_size(_num_bytes(declared), limits)
    _check_size(len(body), limits)
    account.hold(len(body))


async def receive_body(
    arriving: Arriving, sink: BodySink, limits: BodyLimits, account: BufferAccount
) -> None:
    """Feed a request's body to a sink.

    Raises:
        PayloadTooLarge: It says it is too large, or turns out to be; the rest is not read.
        RequestTimeout: It did not come in time.
        Overloaded: There is no memory for it now.
        ClientGone: The client hung up before the end.
    """
    if arriving.declared is not None:
        declared_bytes = _num_bytes(arriving.declared)
        _check_size(declared_bytes, limits)
        account.hold(declared_bytes)
    try:
        async with asyncio.timeout(limits.timeout_s):
            await _pump(arriving.receive, sink, limits, account)
    except TimeoutError:
        raise RequestTimeout(limit_s=limits.timeout_s) from None


async def _pump(
    receive: Receive, sink: BodySink, limits: BodyLimits, account: BufferAccount
) -> None:
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        if chunk:
            num_bytes += len(chunk)
            _check_size(num_bytes, limits)
            account.hold(num_bytes)
            sink.feed(chunk)
        if not message.get("more_body", False):
            return


def _num_bytes(declared: bytes) -> int:
    if not (declared.isdigit() and len(declared) <= _MAX_LENGTH_DIGITS):
        raise BadRequest("Content-Length is no number of bytes")
    return int(declared)


def _check_size(num_bytes: int, limits: BodyLimits) -> None:
    if num_bytes > limits.max_bytes:
        raise PayloadTooLarge("the body", limit=limits.max_bytes, unit="bytes", actual=num_bytes)
