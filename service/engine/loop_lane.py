"""A lane whose stages run elsewhere: the event loop starts them and hears when they are over.

No thread waits for anything, so nothing takes the interpreter from the event loop, and a batch
costs it two system calls.
"""

import asyncio
import logging
import time
from typing import Final

from service.backends.base import StageLane
from service.engine.lane_turns import Turns
from service.engine.stage_run import StageResult, StageRun, StartedStage, start_stage
from service.errors import BackendFailed

_PAUSE_S: Final = 1.0  # before a lane that does not start is started again
_STARVED_SHARE: Final = 0.5

logger = logging.getLogger(__name__)


class LoopLane:
    """Drives one lane of a backend. Belongs to the event loop on which it is started.

    Where what runs the stages dies, the batch has failed, and the lane takes no other until that
    was started anew.

    Args:
        index: Which of the engine's lanes.
        site: Where its stages run.
        turns: Whom it asks.
        pause_s: Before what does not start is started again.
    """

    def __init__(
        self, index: int, site: StageLane, turns: Turns, *, pause_s: float = _PAUSE_S
    ) -> None:
        self.index = index
        self.is_alive = True
        self._site = site
        self._turns = turns
        self._pause_s = pause_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = -1  # descriptor
        self._started: StartedStage | None = None
        self._timer: asyncio.Handle | None = None  # of the next look
        self._revival: asyncio.Handle | None = None
        self._waited: tuple[float, float] | None = None  # for a core: when looked at, how long

    def start(self) -> None:
        """Begin to take turns, on the loop that runs."""
        self._loop = asyncio.get_running_loop()
        if self._site.fileno() < 0:
            self._lose()
        else:
            self._watch()
        self._take_turn(None)

    def is_starved(self) -> bool:
        """Whether its stage got no core for most of the time since this was last asked.

        True at first: once there is something to compare with, the next look tells.
        """
        before, now = self._waited, (time.monotonic(), self._site.waited_s())
        self._waited = now
        if before is None:
            return True
        return now[1] - before[1] > _STARVED_SHARE * (now[0] - before[0])

    def wake(self) -> None:
        """Look soon: behind the requests that came together with the one that wakes."""
        self._let_timer_go()
        if self._loop is not None:
            self._timer = self._loop.call_soon(self._look)

    def stop(self) -> None:
        """Hear of nothing any more; what runs is not waited for."""
        if self._loop is None:
            return
        self._let_timer_go()
        self._let_revival_go()
        self._unwatch()
        self._loop = None
        self._started = None
        self._turns.stopped(self)

    def _look(self) -> None:
        self._timer = None
        self._take_turn(None)

    def _look_unasked(self) -> None:
        self._timer = None
        if self._turns.oversleeps(self):
            self._take_turn(None)

    def _take_turn(self, result: StageResult | None) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            turn = self._turns.turn(self, result)
            if turn.run is not None:
                self._begin(turn.run, loop)
            elif turn.is_over:
                self.stop()
            elif turn.sleep_s is not None:
                self._timer = loop.call_later(max(0.0, turn.sleep_s), self._look_unasked)
            # Afterwards: those who are told can wait for as long as that took, the lane should not.
            self._turns.after(turn)
        except BaseException:
            # A defect ends the lane and shows as its exception; nobody is left waiting for it.
            self.stop()
            raise

    def _begin(self, run: StageRun, loop: asyncio.AbstractEventLoop) -> None:
        self._waited = None
        started = start_stage(self._site, run)
        if isinstance(started, StartedStage):
            self._started = started
            return
        if self._site.fileno() < 0:
            # Now: its descriptor may be somebody else's before the loop comes back here.
            self._lose()
        loop.call_soon(self._end, started)

    def _hear(self) -> None:
        """Take in that a stage is over, or that what runs them is there again, or gone."""
        started, self._started = self._started, None
        if not self.is_alive:
            self._take_up()
        elif started is not None:
            self._end(self._result(started))
        else:
            self._lose()
            # Asleep it would count as one that takes what comes next.
            if self._turns.oversleeps(self):
                self._let_timer_go()
                self._take_turn(None)

    def _result(self, started: StartedStage) -> StageResult:
        try:
            return started.result()
        except BaseException:
            self.stop()  # as in `_take_turn`
            raise

    def _end(self, result: StageResult) -> None:
        if self.is_alive and self._site.fileno() < 0:
            self._lose()
        self._take_turn(result)

    def _lose(self) -> None:
        """Take no batch until what runs them is there again."""
        self.is_alive = False
        self._unwatch()
        if self._loop is not None:
            self._let_revival_go()
            self._revival = self._loop.call_soon(self._revive)

    def _revive(self) -> None:
        self._revival = None
        try:
            self._site.revive()
        except BackendFailed as error:
            self._try_later(error)
        else:
            self._watch()

    def _take_up(self) -> None:
        try:
            self._site.take_up()
        except BackendFailed as error:
            self._unwatch()
            self._try_later(error)
        else:
            self.is_alive = True
            self._turns.revived(self)

    def _try_later(self, error: BackendFailed) -> None:
        logger.error("lane %d: %s; once more in %.0f s", self.index, error, self._pause_s)
        if self._loop is not None:
            self._revival = self._loop.call_later(self._pause_s, self._revive)

    def _watch(self) -> None:
        if self._loop is not None:
            self._watched = self._site.fileno()
            self._loop.add_reader(self._watched, self._hear)

    def _unwatch(self) -> None:
        if self._watched >= 0 and self._loop is not None:
            self._loop.remove_reader(self._watched)
        self._watched = -1

    def _let_timer_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_revival_go(self) -> None:
        if self._revival is not None:
            self._revival.cancel()
            self._revival = None
