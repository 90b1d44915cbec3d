"""How long a connection may idle before it is closed, on a clock that a test moves."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from service.api.connection import HttpConnection
from service.errors import Overloaded
from tests.api.conftest import Api

KEEP_ALIVE_S = 75
REFUSED = b"POST /classify HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n\x89PNG"


class Timer:
    """One that `Loop` made."""

    def __init__(self, due_at: float, callback: Callable[[], None]) -> None:
        self.due_at = due_at
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """As much of an event loop as a connection has to do with that is answered at once."""

    def __init__(self) -> None:
        self.instant = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.instant

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.instant + delay_s, callback)
        self.timers.append(timer)
        return timer

    @property
    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.is_cancelled]

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what becomes due."""
        end = self.instant + seconds
        while due := [timer for timer in self.pending if timer.due_at <= end]:
            timer = min(due, key=lambda one: one.due_at)
            self.timers.remove(timer)
            self.instant = timer.due_at
            timer.callback()
        self.instant = end


class Transport(asyncio.Transport):
    """Remembers what is written, and whether it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        del name
        return default

    def write(self, data: object) -> None:
        self.written.append(cast("bytes", data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


class Wire:
    """A connection, its transport and the loop that both are on."""

    def __init__(self, api: Api) -> None:
        self.loop = Loop()
        self.transport = Transport()
        config = Config(
            api.app, log_config=None, lifespan="off", ws="none", timeout_keep_alive=KEEP_ALIVE_S
        )
        self.connection = HttpConnection(
            api.app.front_desk,
            config=config,
            server_state=ServerState(),
            app_state={},
            _loop=cast("asyncio.AbstractEventLoop", self.loop),
        )
        self.connection.connection_made(self.transport)


@pytest.fixture
def wire(api: Api) -> Wire:
    """A connection to a server that refuses everything at once."""
    api.classify.decodes_at_once = True
    api.classify.error = Overloaded(retry_after_s=0.1)
    return Wire(api)


def test_an_idle_connection_is_closed_when_its_time_is_up(wire: Wire):
    wire.connection.data_received(REFUSED)

    wire.loop.advance(KEEP_ALIVE_S - 1)
    assert not wire.transport.is_closed
    wire.loop.advance(1)
    assert wire.transport.is_closed


def test_every_answer_gives_it_the_whole_time_again(wire: Wire):
    for _ in range(3):
        wire.connection.data_received(REFUSED)
        wire.loop.advance(KEEP_ALIVE_S - 1)

    assert len(wire.transport.written) == 3
    assert not wire.transport.is_closed
    wire.loop.advance(1)
    assert wire.transport.is_closed


def test_a_connection_in_use_is_left_alone_and_looked_after_again_later(wire: Wire):
    wire.connection.data_received(REFUSED)
    wire.loop.advance(KEEP_ALIVE_S - 1)
    wire.connection.data_received(REFUSED[:20])

    wire.loop.advance(10 * KEEP_ALIVE_S)
    assert not wire.transport.is_closed
    wire.connection.data_received(REFUSED[20:])
    wire.loop.advance(KEEP_ALIVE_S)

    assert len(wire.transport.written) == 2
    assert wire.transport.is_closed


def test_many_requests_share_one_timer_which_ends_with_the_connection(wire: Wire):
    for _ in range(10):
        wire.connection.data_received(REFUSED)
    assert len(wire.loop.timers) == 1

    wire.connection.connection_lost(None)

    assert wire.loop.pending == []
