"""Finds the end of an HTTP/1.1 answer as cheaply as can be; nothing in it is understood yet."""

import re
from dataclasses import dataclass
from typing import Final

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Reply:
    """One whole answer."""

    status: int
    body: bytes
    is_last: bool  # the server closes the connection after it


def read_reply(received: bytes) -> Reply | None:
    """Return the answer that these bytes are, None while some are missing.

    Raises:
        ValueError: They are no HTTP.
    """
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    status = int(received[9:12])
    length = _LENGTH.search(received, 0, head_end)
    if length is not None:
        body_end = head_end + 4 + int(length[1])
        if len(received) < body_end:
            return None
        body = received[head_end + 4 : body_end]
    elif _CHUNKED.search(received, 0, head_end) is not None:
        if not received.endswith(_LAST_CHUNK):
            return None
        body = _join_chunks(received[head_end + 4 :])
    else:
        body = b""
    return Reply(status, body, _CLOSE.search(received, 0, head_end) is not None)


def _join_chunks(encoded: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = encoded.index(b"\r\n", at)
        length = int(encoded[at:line_end], 16)
        if length == 0:
            return b"".join(parts)
        parts.append(encoded[line_end + 2 : line_end + 2 + length])
        at = line_end + 2 + length + 2
