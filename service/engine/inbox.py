"""The one place that knows both threads: cohorts go in to the lane, settlements come back out.

One hop each way: a cohort is put in once, and all that a batch settles returns together.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from service.engine.cohort import InFlightCohort, Settlement
from service.engine.request import ImageOutcome
from service.errors import EngineStopped


@dataclass(frozen=True, slots=True)
class Mail:
    """What came in since the lane last looked."""

    arrivals: tuple[InFlightCohort, ...] = ()
    dropped: tuple[InFlightCohort, ...] = ()  # settled already; nothing more is to run for them
    is_closed: bool = False


_NO_MAIL: Final = Mail()


class Inbox:
    """Carries cohorts to the lane, which sleeps on it when idle. Thread-safe."""

    def __init__(self) -> None:
        self._has_mail = threading.Condition()
        self._arrivals: list[InFlightCohort] = []
        self._dropped: list[InFlightCohort] = []
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing is taken in any more."""
        return self._is_closed

    def put(self, cohort: InFlightCohort) -> None:
        """Hand a cohort over.

        Raises:
            EngineStopped: Nobody would run it.
        """
        with self._has_mail:
            if self._is_closed:
                raise EngineStopped
            self._arrivals.append(cohort)
            self._has_mail.notify()

    def drop(self, cohort: InFlightCohort) -> bool:
        """Ask that nothing more be run for a cohort that is settled.

        Returns:
            Whether a lane will see to it; once closed there may be none.
        """
        with self._has_mail:
            if self._is_closed:
                return False
            self._dropped.append(cohort)
            self._has_mail.notify()
            return True

    def close(self) -> None:
        """Take in nothing any more and tell the lane to end."""
        with self._has_mail:
            self._is_closed = True
            self._has_mail.notify()

    def collect(self, *, may_wait: bool) -> Mail:
        """Take all mail out.

        Args:
            may_wait: Whether to sleep until there is some.
        """
        if not (may_wait or self._has_some):
            # Between two stages, without the lock: what comes this instant is seen after the next.
            return _NO_MAIL
        with self._has_mail:
            while may_wait and not self._has_some:
                self._has_mail.wait()
            mail = Mail(tuple(self._arrivals), tuple(self._dropped), self._is_closed)
            self._arrivals, self._dropped = [], []
        return mail

    @property
    def _has_some(self) -> bool:
        return bool(self._arrivals or self._dropped or self._is_closed)


class Outbox:
    """Carries outcomes back to the coroutines that wait for them, all on one event loop.

    `post` may be called by any thread; everything else belongs to the event loop.
    """

    def __init__(self) -> None:
        self._waiters: dict[int, asyncio.Future[tuple[ImageOutcome, ...]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def expect(self, cohort_id: int) -> asyncio.Future[tuple[ImageOutcome, ...]]:
        """Return what will hold the outcomes of a cohort; `forget` it however that ends."""
        self._loop = asyncio.get_running_loop()
        waiter: asyncio.Future[tuple[ImageOutcome, ...]] = self._loop.create_future()
        self._waiters[cohort_id] = waiter
        return waiter

    def forget(self, cohort_id: int) -> None:
        """Nobody waits for this cohort any more."""
        del self._waiters[cohort_id]

    def deliver(self, settlements: Sequence[Settlement]) -> None:
        """Wake those who wait for these cohorts; who has gone is passed over."""
        for settlement in settlements:
            waiter = self._waiters.get(settlement.cohort.cohort_id)
            if waiter is not None and not waiter.done():
                waiter.set_result(settlement.outcomes)

    def post(self, settlements: Sequence[Settlement]) -> None:
        """Deliver from another thread, with one hop for all of them."""
        if self._loop is not None:
            call_on(self._loop, partial(self.deliver, settlements))


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call back on an event loop, from any thread; nobody is left to wait on a closed one."""
    # Asked whether it is closed, it might close before the call.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
