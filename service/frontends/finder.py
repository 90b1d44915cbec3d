"""Keeps a front end connected: to one engine process, and to another when that one is gone."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.errors import NotReady
from service.frontends.board import Board
from service.frontends.early import Place
from service.frontends.link import Link
from service.frontends.slot_form import SlotForm
from service.frontends.slots import Slots
from service.frontends.wire import Document
from service.shared_block import SharedBlock

_RETRY_S: Final = 0.05  # between attempts to reach an engine


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """Which front end this is, and where its engine is."""

    index: int
    num_front_ends: int
    address: str  # path of the engine's socket


class EngineFinder:
    """Looks for an engine until it is closed. Belongs to the event loop.

    Args:
        front_end: Which one this is.
        form: Of the slots that are shared with an engine.
        num_slots: How many of them.
        num_times: Numbers in the table of what stages take.
        changed: Told of a place on another engine's board; None: the engine is gone.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        form: SlotForm,
        *,
        num_slots: int,
        num_times: int,
        changed: Callable[[Place | None], None],
    ) -> None:
        self._front_end = front_end
        self._form = form
        self._num_slots = num_slots
        self._num_times = num_times
        self._changed = changed
        self._link: Link | None = None
        self._found = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def link(self) -> Link | None:
        """To an engine that takes requests; None while there is none."""
        return self._link if self._link is not None and self._link.is_welcome else None

    def need_link(self) -> Link:
        """Return the link to an engine.

        Raises:
            NotReady: There is no engine at present.
        """
        link = self.link
        if link is None:
            raise NotReady
        return link

    async def start(self, limit_s: float) -> None:
        """Begin to look, for good, and return once there is an engine or time is up."""
        self._keeper = asyncio.create_task(self._keep_connected())
        try:
            await asyncio.wait_for(self._found.wait(), limit_s)
        except TimeoutError:
            return

    async def close(self) -> None:
        """Let the engine go; whoever waits is settled as when it is lost."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link is not None:
            self._link.wire.close()

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(0.0)
            try:
                await loop.sock_connect(connection, self._front_end.address)
            except OSError:
                connection.close()
                await asyncio.sleep(_RETRY_S)
                continue
            self._lost.clear()
            slots, block = Slots.create(self._form, self._num_slots)
            self._link = Link(
                connection,
                index=self._front_end.index,
                slots=slots,
                block=block,
                ended=self._lose,
                welcomed=self._be_welcome,
            )
            await self._lost.wait()

    def _be_welcome(self, _: Document, fd: int) -> None:
        front_end = self._front_end
        board = Board(SharedBlock.attach(fd), self._num_times)
        self._changed(Place(board, front_end.index, front_end.num_front_ends))
        self._found.set()

    def _lose(self) -> None:
        self._link = None
        self._changed(None)
        self._found.clear()
        self._lost.set()
