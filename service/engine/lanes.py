"""All lanes and the engine's one lock: who sleeps, who is woken, and how it all ends."""

import math
import threading
from collections.abc import Callable

from service.backends.base import LanedBackend, StageBackend
from service.engine.admission import Charge
from service.engine.clock import Clock
from service.engine.cohort import InFlightCohort, Told
from service.engine.core import EngineCore
from service.engine.image import Ending
from service.engine.lane_making import LaneOptions, lanes_of
from service.engine.lane_turns import Lane, Turn
from service.engine.outbox import Outbox, tell
from service.engine.stage_run import StageResult
from service.engine.when_empty import WhenEmpty
from service.errors import EngineStopped, ReplicaLost


class Lanes:
    """Lets lanes take batches from the core, one at a time under the lock. Thread-safe.

    However they end, everybody in flight is settled.

    Args:
        core: What they share; whoever touches it holds `lock`.
        backend: Runs the stages.
        clock: Tells the core the present instant.
        outbox: Where settlements go.
        options: How many, and how they run.
    """

    def __init__(
        self,
        core: EngineCore,
        backend: StageBackend,
        clock: Clock,
        *,
        outbox: Outbox,
        options: LaneOptions,
    ) -> None:
        self.lock = threading.Lock()
        self._core = core
        self._clock = clock
        self._outbox = outbox
        self._is_closed = False
        self._is_lost = False
        self._when_empty = WhenEmpty(core, self.lock)
        self.are_on_loop = isinstance(backend, LanedBackend)
        self._lanes = lanes_of(backend, self, options)
        self._num_active = options.num_lanes  # the first so many; the others rest
        self._resting: list[Lane] = []
        self._sleeping: list[Lane] = []  # the last to fall asleep wakes first: its caches are warm

    @property
    def num_lanes(self) -> int:
        """How many there are."""
        return len(self._lanes)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is run any more."""
        return self._is_closed

    @property
    def are_alive(self) -> bool:
        """Whether cohorts are run."""
        return not self._is_closed and any(lane.is_alive for lane in self._lanes)

    def start(self) -> None:
        """Start all lanes, once."""
        for lane in self._lanes:
            lane.start()

    def keep_active(self, num_active: int) -> None:
        """Have only so many lanes take batches, at least one; the others rest after what they run.

        On the event loop.
        """
        with self.lock:
            if self._is_closed or num_active == self._num_active:
                return
            self._num_active = num_active
            for lane in [one for one in self._sleeping if one.index >= num_active]:
                self._sleeping.remove(lane)
                self._rest(lane)
            for lane in [one for one in self._resting if one.index < num_active]:
                if lane.is_alive:
                    self._resume(lane)

    @property
    def has_deadlines(self) -> bool:
        """Whether anybody with a deadline was admitted in the last seconds."""
        with self.lock:
            return self._core.ledger.longest_optional_s(self._clock.now()) != math.inf

    def refuse_if_closed(self) -> None:
        """Refuse whoever comes too late.

        Raises:
            ReplicaLost: A stage hangs.
            EngineStopped: The engine ended otherwise.
        """
        if self._is_lost:
            raise ReplicaLost
        if self._is_closed:
            raise EngineStopped

    def hand_over(self, cohort: InFlightCohort, waiter: Told, now: float) -> None:
        """Begin a cohort that was admitted; under the lock.

        Args:
            cohort: Which.
            waiter: Is told how it ends.
            now: The present instant.
        """
        cohort.waiter = waiter
        self._core.begin(cohort, now)
        self._wake_one()

    def _wake_one(self) -> None:
        """Wake a sleeping lane, if there is one, because there may be work; under the lock."""
        if self._sleeping:
            self._sleeping.pop().wake()

    def turn(self, lane: Lane, result: StageResult | None) -> Turn:
        """Take in how a lane's batch went and say what it does next; see `Turns`."""
        core = self._core
        with self.lock:
            now = self._clock.now()
            if result is not None:
                core.finish(lane.index, result, now)
            is_over = self._is_closed
            rests = not lane.is_alive or (
                lane.index >= self._num_active and not core.keeps_for(lane.index)
            )
            run = None if is_over or rests else core.take(lane.index, now)
            settlements = core.take_settlements()
            sleep_s = None
            if rests and not is_over:
                self._rest(lane)
            elif run is None and not is_over:
                event_at = core.next_event_at()
                sleep_s = None if event_at is None else event_at - now
                self._sleeping.append(lane)
            if self._sleeping and core.has_waiting and (run is not None or rests):
                self._wake_one()
        return Turn(run, is_over, sleep_s, settlements)

    def after(self, turn: Turn) -> None:
        """Tell those whom a turn settled."""
        if turn.settlements:
            if self.are_on_loop:
                for settlement in turn.settlements:
                    tell(settlement)
            else:
                self._outbox.post(turn.settlements)
        self._when_empty.look()

    def oversleeps(self, lane: Lane) -> bool:
        """Let a lane look for itself that nobody woke; False where it was woken this instant."""
        with self.lock:
            if lane not in self._sleeping:
                return False
            self._sleeping.remove(lane)
            return True

    def revived(self, lane: Lane) -> None:
        """Let a lane take batches again that is alive again."""
        with self.lock:
            if lane in self._resting and lane.index < self._num_active:
                self._resume(lane)

    def settle(self, cohort: InFlightCohort, ending: Ending) -> None:
        """Settle a cohort, unless it is settled already; on the event loop."""
        with self.lock:
            settlement = self._core.settle(cohort, ending, self._clock.now())
        if settlement is not None:
            tell(settlement)
        self._when_empty.look()

    def release(self, charge: Charge) -> None:
        """Discharge what was admitted; a second time does nothing."""
        if not charge.is_released:
            with self.lock:
                self._core.ledger.release(charge)
        self._when_empty.look()

    def close(self) -> None:
        """Settle everybody and wait for the lanes to end, but for the one that calls."""
        self._end(Ending.STOPPED)
        for lane in self._lanes:
            lane.stop()

    def stopped(self, lane: Lane) -> None:
        """Take in that a lane ends; by a defect, the others end too."""
        with self.lock:
            self._core.lanes.forget(lane.index)
        self._end(Ending.STOPPED)

    def give_up_if_wedged(self, *, least_s: float) -> bool:
        """Settle everybody if a stage hangs, as there is no telling when it would end.

        Args:
            least_s: So long any stage may take.

        Returns:
            Whether that is so.
        """
        with self.lock:
            run = self._core.lanes.wedged(self._clock.now(), least_s=least_s)
            # Others than us keep the cores busy: to start anew would only cost us more of them.
            self._is_lost = run is not None and not self._lanes[run.lane].is_starved()
        if self._is_lost:
            self._end(Ending.LOST)
            self._outbox.deliver()
        return self._is_lost

    def call_when_empty(self, callback: Callable[[], None]) -> None:
        """Call back, once, from whichever thread finds nothing in flight."""
        self._when_empty.call(callback)

    def _end(self, ending: Ending) -> None:
        with self.lock:
            if not self._is_closed:
                self._is_closed = True
                self._core.settle_all(ending, self._clock.now())
            settlements = self._core.take_settlements()
            while self._sleeping:
                self._wake_one()
            for lane in tuple(self._resting):
                self._resume(lane)
        self.after(Turn(None, is_over=True, sleep_s=None, settlements=settlements))

    def _resume(self, lane: Lane) -> None:
        """Have a lane that rests take turns again; under the lock."""
        self._resting.remove(lane)
        self._core.lanes.resume(lane.index)
        lane.wake()

    def _rest(self, lane: Lane) -> None:
        """Have a lane sleep until it is to be active again; under the lock."""
        self._core.lanes.rest(lane.index)
        self._resting.append(lane)
