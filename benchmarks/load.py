"""Sends one request over and over on kept-open connections, cheaply enough not to be measured.

Runs in a process of its own (`python -m benchmarks.load`), so that it never shares the server's
interpreter; prints requests a second.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass

_STATUS_OK = b"200"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, how often at once, and for how long."""

    port: int
    request: bytes
    connections: int
    seconds: float


def post(path: str, body: bytes, *, content_type: str = "application/octet-stream") -> bytes:
    """Return an HTTP/1.1 request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run(load: Load) -> float:
    """Return requests answered a second, all connections together.

    Raises:
        RuntimeError: An answer was no 200.
    """
    began = time.monotonic()
    counts = await asyncio.gather(
        *(_repeat(load, until=began + load.seconds) for _ in range(load.connections))
    )
    return sum(counts) / (time.monotonic() - began)


async def _repeat(load: Load, *, until: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
    count = 0
    while time.monotonic() < until:
        writer.write(load.request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(_content_length(head))
        if head.split(b" ", 2)[1] != _STATUS_OK:
            raise RuntimeError(f"the server answered {head[:200]!r}")
        count += 1
    writer.close()
    return count


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"the answer has no length: {head[:200]!r}")


def main() -> int:
    """Send the body on standard input; print requests a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    request = post(options.path, sys.stdin.buffer.read())
    load = Load(options.port, request, options.connections, options.seconds)
    sys.stdout.write(f"{asyncio.run(run(load)):.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
