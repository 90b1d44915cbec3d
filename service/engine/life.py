"""How an engine is put together, begins and ends; what it is asked meanwhile is in `engine`."""

import asyncio
from collections.abc import Callable, Mapping

from service.backends.base import ModelKey, StageBackend
from service.engine.clock import Clock
from service.engine.core import EngineCore
from service.engine.lane_making import LaneOptions
from service.engine.lanes import Lanes
from service.engine.loop_load import LoopLoad
from service.engine.margin import AnswerMargin
from service.engine.observer import Observer
from service.engine.outbox import Outbox, call_on
from service.engine.outlook import Outlook
from service.engine.request import EngineLimits, ServedModel
from service.engine.stage_costs import StageCosts
from service.engine.warm_up import WarmUp
from service.engine.watchdog import Watchdog


class EngineLife(Outlook):
    """Lanes and their core, from warming up to the end.

    Everything but what says otherwise is called on the event loop. State that lanes touch too is
    the core's, behind one lock.

    Args:
        backend: Runs the stages; nobody else uses it while the engine runs.
        models: Everything that may be asked for.
        costs: Expected times, empty until `warm_up`; knows the largest batch.
        limits: How much may be in flight.
        clock: Deadlines are instants of it.
        observer: Hears of everything countable.
        margin: How long before its deadline an answer must be ready; learns.
        lanes: That run batches side by side.
    """

    def __init__(
        self,
        *,
        backend: StageBackend,
        models: Mapping[ModelKey, ServedModel],
        costs: StageCosts,
        limits: EngineLimits,
        clock: Clock,
        observer: Observer,
        margin: AnswerMargin | None = None,
        lanes: LaneOptions = LaneOptions(),  # noqa: B008 - frozen
    ) -> None:
        self.margin = AnswerMargin() if margin is None else margin
        self._observer = observer
        core = EngineCore(
            models=models,
            stage_costs=costs,
            limits=limits,
            margin=self.margin,
            num_lanes=lanes.num_lanes,
            can_join=backend.can_join,
            observer=observer,
        )
        self._fills_cores = lanes.fills_cores
        self._outbox = Outbox()
        self._lanes = Lanes(core, backend, clock, outbox=self._outbox, options=lanes)
        super().__init__(core, self._lanes.lock, clock, models=models, costs=costs, limits=limits)
        self._warm_up = WarmUp(backend, costs, clock, num_lanes=lanes.num_lanes)

    @property
    def is_alive(self) -> bool:
        """Whether cohorts are run."""
        return self._lanes.are_alive

    def warm_up(self) -> None:
        """Run and profile every stage at every batch size; before `start`, in any thread.

        Raises:
            BackendFailed: A stage does not run.
        """
        for model in self._models.values():
            self._observer.warmed_up(model.key, self._warm_up.profile(model))

    def start(self) -> None:
        """Start the lanes, once."""
        self._lanes.start()

    def keep_active(self, num_lanes: int) -> None:
        """Have only so many lanes take batches; see `Lanes.keep_active`."""
        self._lanes.keep_active(num_lanes)

    def watch(self, *, wedged_s: float, on_wedged: Callable[[], None]) -> None:
        """Look after the lanes from now on: a stage that hangs settles everybody.

        Args:
            wedged_s: So long any stage may take.
            on_wedged: Called once, when callers have been told; this engine runs nothing any more.
        """
        if self._fills_cores and self._lanes.num_lanes > 1 and not self._lanes.are_on_loop:
            LoopLoad(self._lanes).look()
        Watchdog(self._lanes, wedged_s=wedged_s, on_wedged=on_wedged).look()

    def close(self) -> None:
        """Settle everybody with `EngineStopped` and stop after the stages that run.

        Returns when that is done, except in a lane's own thread, which cannot wait for itself.
        """
        self._lanes.close()

    async def drained(self) -> None:
        """Return when nothing is in flight and everybody settled has been told."""
        loop = asyncio.get_running_loop()
        is_empty = asyncio.Event()
        self._lanes.call_when_empty(lambda: call_on(loop, is_empty.set))
        await is_empty.wait()
