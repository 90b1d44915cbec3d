"""Clients of a soak: most wait for their answers, some leave in the middle."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final
from urllib.parse import urlencode

import httpx

from benchmarks.soak.requests import Ask, draw

_LIMIT_S: Final = 30.0  # for any answer; beyond it a request counts as never settled
_HANG_UP_SHARE: Final = 0.15
_LONGEST_STAY_S: Final = 0.04
_NOTHING_SENT: Final = 0.2  # of those that hang up: only a part of the request is sent


@dataclass(slots=True)
class Tally:
    """What became of the requests; filled by the clients, on one event loop."""

    answered: Counter[tuple[str, int]] = field(default_factory=Counter)  # by kind and status
    unexpected: list[str] = field(default_factory=list)
    num_hung_up: int = 0

    @property
    def num_answered(self) -> int:
        """Requests that were waited for and answered."""
        return sum(self.answered.values())


async def run_clients(port: int, *, number: int, seconds: float, seed: int) -> Tally:
    """Return what became of the requests of some clients within some seconds.

    Args:
        port: On 127.0.0.1.
        number: Of clients at once.
        seconds: After which none sends another request; all are waited for.
        seed: Of what they do.
    """
    tally = Tally()
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=number, max_keepalive_connections=number)
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, timeout=_LIMIT_S, limits=limits) as http:
        clients = (_client(http, port, Random(seed + i), tally, until=until) for i in range(number))  # noqa: S311 - repeatable, not secret
        await asyncio.gather(*clients)
    return tally


async def _client(
    http: httpx.AsyncClient, port: int, random: Random, tally: Tally, *, until: float
) -> None:
    while time.monotonic() < until:
        ask = draw(random)
        if random.random() < _HANG_UP_SHARE:
            await _hang_up(port, ask, random)
            tally.num_hung_up += 1
        else:
            await _wait_for(http, ask, tally)


async def _wait_for(http: httpx.AsyncClient, ask: Ask, tally: Tally) -> None:
    headers = {"content-type": ask.content_type} if ask.body else {}
    # Given only where there is one: httpx would empty a path's own query.
    params = dict(ask.query) or None
    try:
        answer = await http.request(
            ask.method, ask.path, params=params, content=ask.body, headers=headers
        )
    except httpx.HTTPError as failed:
        tally.unexpected.append(f"{ask.name}: {type(failed).__name__} {failed}")
        return
    tally.answered[ask.name, answer.status_code] += 1
    if answer.status_code not in ask.expected:
        said = answer.text[:200]
        tally.unexpected.append(f"{ask.name} {dict(ask.query)}: {answer.status_code} {said}")


async def _hang_up(port: int, ask: Ask, random: Random) -> None:
    path = f"{ask.path}?{urlencode(ask.query)}" if ask.query else ask.path
    head = (
        f"{ask.method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {ask.content_type}\r\nContent-Length: {len(ask.body)}\r\n\r\n"
    )
    request = head.encode() + ask.body
    if random.random() < _NOTHING_SENT:
        request = request[: random.randint(1, len(request) - 1)]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await asyncio.sleep(random.uniform(0, _LONGEST_STAY_S))
    writer.transport.abort()
