"""What a request claims of the engine: work it is owed, room it takes, by when. Pure."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from service.engine.margin import AnswerMargin
from service.engine.request import ServedModel, Terms
from service.engine.stage_costs import ModelTimes

_US: Final = 1e6
# For so long prices are not worked out anew: what a few batches teach changes them little.
_FRESH_S: Final = 0.02


class Claim(NamedTuple):
    """What somebody wants to take in, in the units of the ledger.

    Work is counted in whole microseconds: what is added and taken away in any order comes to 0.
    """

    num_images: int  # that are owed an exit
    num_at_once: int  # of them, in flight at once
    feature_bytes: int  # of those
    shares_us: tuple[int, ...]  # per image and stage up to that exit, in batches of best size
    full_depth_us: int  # all images to the last exit, likewise
    alone_s: float  # all images to that exit on an idle machine
    due_at: float  # of work without a deadline, when it counts as overdue
    ready_at: float  # when its pixels are there
    answer_by: float | None  # the deadline less its margin
    deadline_s: float  # from its arrival to the deadline; 0 without one
    owed_us: int  # expected work until all its images have an answer
    batch_s: float = 0.0  # to that answer in full batches, as a backlog is worked off


@dataclass(frozen=True, slots=True)
class _Prices:
    """Of one image to one exit."""

    priced_at: float
    shares_us: tuple[int, ...]
    owed_us: int  # their sum
    alone_s: float
    batch_s: float


class PriceList:
    """Prices requests for one model. Mutable, for it remembers; guarded by the engine's lock.

    Args:
        model: Which.
        times: What its stages are expected to take.
        margin: How long before its deadline a request must be answered.
        num_lanes: On which several images run at once.
    """

    def __init__(
        self, model: ServedModel, times: ModelTimes, margin: AnswerMargin, *, num_lanes: int
    ) -> None:
        self._model = model
        self._times = times
        self._margin = margin
        self._num_lanes = num_lanes
        self._last_exit = model.costs.num_exits - 1
        self._prices: dict[int, _Prices] = {}
        self._full_depth_us = 0

    def claim(self, terms: Terms, now: float) -> Claim:
        """Return what somebody's terms come to.

        Raises:
            ValueError: There are no images, or not that many exits.
        """
        if terms.num_images < 1 or not 0 <= terms.mandatory_exit <= self._last_exit:
            raise ValueError(
                f"{terms.num_images} images to exit {terms.mandatory_exit} of {self._last_exit}"
            )
        prices = self._current(terms.mandatory_exit, now)
        num_at_once = terms.num_images if terms.num_at_once is None else terms.num_at_once
        answer_by, deadline_s = None, 0.0
        if terms.deadline_at is not None:
            deadline_s = terms.deadline_at - (now if terms.arrived_at is None else terms.arrived_at)
            answer_by = terms.deadline_at - self._margin.margin_s(deadline_s)
        return Claim(
            terms.num_images,
            num_at_once,
            num_at_once * self._model.border_bytes,
            prices.shares_us,
            terms.num_images * self._full_depth_us,
            prices.alone_s if terms.num_images == 1 else self._alone_s(terms),
            terms.due_at,
            now if terms.ready_at is None else terms.ready_at,
            answer_by,
            deadline_s,
            terms.num_images * prices.owed_us,
            prices.batch_s,
        )

    def _current(self, mandatory_exit: int, now: float) -> _Prices:
        known = self._prices.get(mandatory_exit)
        if known is not None and 0.0 <= now - known.priced_at < _FRESH_S:
            return known
        times = self._times
        shares_us = tuple(
            round(_US * times.share_s(stage_index, classify=stage_index == mandatory_exit))
            for stage_index in range(mandatory_exit + 1)
        )
        alone_s = times.straight_s(0, mandatory_exit)
        batch_s = 0.0
        for stage_index in range(mandatory_exit + 1):
            size = times.best_batch(stage_index)
            num_classified = size if stage_index == mandatory_exit else 0
            batch_s += times.stage_s(stage_index, size, num_classified=num_classified)
        prices = self._prices[mandatory_exit] = _Prices(
            now, shares_us, sum(shares_us), alone_s, batch_s
        )
        self._full_depth_us = round(_US * times.straight_share_s(0, self._last_exit))
        return prices

    def _alone_s(self, terms: Terms) -> float:
        """All images on an idle machine: each lane takes its part, in batches of the best size."""
        num_images = -(-terms.num_images // self._num_lanes)
        alone_s = 0.0
        for stage_index in range(terms.mandatory_exit + 1):
            size = min(num_images, self._times.best_batch(stage_index))
            num_full, rest = divmod(num_images, size)
            classify = stage_index == terms.mandatory_exit
            for batch, times in ((size, num_full), (rest, min(rest, 1))):
                if times:
                    batch_s = self._times.stage_s(
                        stage_index, batch, num_classified=batch * classify
                    )
                    alone_s += times * batch_s
        return alone_s
