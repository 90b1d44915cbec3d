"""What a front end says of an engine that is another process: as the board shows it."""

from collections.abc import Callable, Mapping
from typing import Final

from service.backends.base import ModelKey
from service.engine.clock import Clock
from service.engine.margin import AnswerMargin
from service.engine.request import EngineLimits
from service.engine.stage_costs import ModelTimes, StageCosts
from service.frontends.board import Board
from service.frontends.early import EarlyAdmission, Place
from service.frontends.remote_margin import RemoteMargin
from service.frontends.stage_table import StageTable
from service.models import Model, Models

_REFRESH_S: Final = 0.1  # how old what stages take may be
_ASK_AGAIN_S: Final = 1.0  # while there is no engine


class RemoteOutlook:
    """Answers what `Outlook` does. Belongs to the event loop.

    Args:
        models: Everything that may be asked for; the engine process serves the same.
        stage_costs: Empty; filled with what the engine process says.
        limits: How much may be in flight.
        clock: Monotonic, that of every process of this machine.
        tell_late: Passes on how late an answer left.
    """

    def __init__(
        self,
        models: Models,
        *,
        stage_costs: StageCosts,
        limits: EngineLimits,
        clock: Clock,
        tell_late: Callable[[float], None],
    ) -> None:
        self.limits = limits
        self.stage_costs = stage_costs
        self._models: Mapping[ModelKey, Model] = {model.key: model for model in models}
        self._clock = clock
        self._learnt = AnswerMargin()
        self.margin = RemoteMargin(self._learnt, tell_late)
        self._table = StageTable(
            {key: model.served.costs.num_exits for key, model in self._models.items()}, stage_costs
        )
        self._admission = EarlyAdmission(
            {key: model.served for key, model in self._models.items()},
            stage_costs=stage_costs,
            margin=self._learnt,
            limits=limits,
        )
        self._board: Board | None = None
        self._refresh_at = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether there is an engine that takes requests."""
        return self._board is not None

    @property
    def num_in_flight(self) -> int:
        """Images in flight, of all front ends."""
        return self._admission.num_in_flight() if self.is_alive else 0

    @property
    def num_lanes(self) -> int:
        """Batches that the engine runs side by side."""
        return self._admission.num_lanes()

    def times(self, model: ModelKey) -> ModelTimes:
        """Return what the stages of a model are expected to take, as the engine learnt it."""
        self._refresh(self._clock.now())
        return self.stage_costs.times(model)

    def expected_exit_s(self, model: ModelKey, exit_index: int, batch_size: int) -> float:
        """Return the seconds straight to an exit, no earlier classifier on the way."""
        return self.times(model).straight_s(0, exit_index, batch_size)

    def retry_after_s(self) -> float:
        """Return when the present backlog should be gone."""
        return self._admission.retry_after_s(self._clock.now()) if self.is_alive else _ASK_AGAIN_S

    def backlog_s(self) -> float:
        """Return the seconds until a lane is free for who is due after all with a deadline."""
        return self._admission.backlog_s(self._clock.now()) if self.is_alive else 0.0

    def max_cohort(self, model: ModelKey) -> int:
        """Return how many images of a model may be in flight together, also without a deadline."""
        return self.limits.max_cohort(self._models[model].served.border_bytes)

    def _look_at(self, place: Place | None) -> None:
        """Look at another engine's board from now on; None: at none."""
        self._board = None if place is None else place.board
        self._refresh_at = 0.0
        self._admission.connect(place)
        self._refresh(self._clock.now())

    def _refresh(self, now: float) -> None:
        """Take in what stages take and what margin was learnt, unless that was just done."""
        if self._board is None or now < self._refresh_at:
            return
        self._refresh_at = now + _REFRESH_S
        self._table.read(self._board.times)
        view = self._board.ledger()
        if view is not None:
            self._learnt.learnt_s = view.margin_s
