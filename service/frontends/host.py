"""The engine process's side: takes requests from front ends and leaves the outcomes in their slots.

Whatever a front end had in flight ends with its connection: its tickets are abandoned, its windows
cancelled, its reservations released, and its cell of the board is wiped.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.engine.clock import Clock
from service.engine.engine import Engine
from service.frontends.board import MAX_FRONT_ENDS, Board, Pending
from service.frontends.engine_view import view_of
from service.frontends.guest import Guest
from service.frontends.stage_table import StageTable
from service.frontends.wire import Kind
from service.models import Models

_PUBLISH_S: Final = 0.001  # at least between two looks at the ledger
_LANES_S: Final = 0.01  # how often the ledger is shown while only lanes change it
_TABLE_S: Final = 0.1  # how often what stages take is shown, and a ledger that nobody changed

logger = logging.getLogger(__name__)


class EngineHost:
    """Serves one engine to front ends. Belongs to the event loop.

    Args:
        engine: Warmed up and started.
        models: That it serves.
        clock: Monotonic.
    """

    def __init__(self, engine: Engine, models: Models, *, clock: Clock) -> None:
        self.engine = engine
        self.models = tuple(models)
        self._clock = clock
        exits = {model.key: model.served.costs.num_exits for model in self.models}
        self._table = StageTable(exits, engine.stage_costs)
        self._board, self._block = Board.create(self._table.size)
        self._taken = [0] * MAX_FRONT_ENDS
        self._guests: dict[int, Guest] = {}
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._published_at = 0.0
        self._is_publication_due = False

    async def serve(self, address: str, *, listening: Callable[[], None]) -> None:
        """Take connections until cancelled.

        Args:
            address: Path of a socket; what is left there of another process is replaced.
            listening: Called once front ends can connect.
        """
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(Path(address).unlink, missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(0.0)
            listener.bind(address)
            listener.listen()
            showing = asyncio.create_task(self._show())
            listening()
            try:
                while True:
                    connection, _ = await loop.sock_accept(listener)
                    Guest(self, connection)
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)

    async def deserted(self) -> None:
        """Return when no front end is connected."""
        await self._is_empty.wait()

    def close(self) -> None:
        """Let all front ends go."""
        for guest in tuple(self._guests.values()):
            guest.wire.close()

    def welcome(self, guest: "Guest", front_end: int) -> None:
        """Take a front end in; one that was there under its number is gone."""
        before = self._guests.pop(front_end, None)
        if before is not None:
            before.wire.close()
        self._guests[front_end] = guest
        self._is_empty.clear()
        self._taken[front_end] = 0
        self._board.put_cell(front_end, 0, Pending())
        self._publish()
        guest.wire.send_document(Kind.WELCOME, {}, self._block.fd)

    def forget(self, guest: "Guest", front_end: int) -> None:
        """Let go of a front end that is gone."""
        if self._guests.get(front_end) is guest:
            del self._guests[front_end]
            self._board.put_cell(front_end, 0, Pending())
        if not self._guests:
            self._is_empty.set()
        self.changed()

    def count_taken(self, front_end: int) -> None:
        """Note that one more request of a front end is in the engine's ledger, or refused."""
        self._taken[front_end] += 1
        self.changed()

    def changed(self) -> None:
        """Show the ledger soon: at once where it was not shown just now."""
        if self._is_publication_due:
            return
        self._is_publication_due = True
        loop = asyncio.get_running_loop()
        rest_s = self._published_at + _PUBLISH_S - self._clock.now()
        if rest_s > 0.0:
            loop.call_later(rest_s, self._publish)
        else:
            loop.call_soon(self._publish)

    def _publish(self) -> None:
        self._is_publication_due = False
        self._published_at = self._clock.now()
        self._board.publish(view_of(self.engine, tuple(self._taken)))

    async def _show(self) -> None:
        """Show what stages take and, while anything is in flight, what is owed."""
        table_at = 0.0
        while True:
            now = self._clock.now()
            if now >= table_at:
                table_at = now + _TABLE_S
                self._table.write(self._board.times)
            self.changed()
            await asyncio.sleep(_LANES_S if self.engine.num_in_flight else _TABLE_S)
