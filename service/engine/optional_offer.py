"""How many of those worth most should run together: the batch that gains most per second."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from service.engine.classifier_choice import is_classified
from service.engine.member import Kind
from service.engine.stage_batch import StageBatch, Turn
from service.engine.stage_costs import StageCosts
from service.engine.stage_prices import ModelPrices
from service.engine.stage_worth import Candidate

# What a batch takes besides its stage: to be chosen, handed over and taken in, by an interpreter
# that all lanes share. Without it, batches of one look as cheap as they are to the backend.
HANDLING_S: Final = 1e-4


@dataclass(slots=True)
class Offer:
    """A batch of better answers."""

    batch: StageBatch
    gain_rate: float  # expected gain per second
    finish_by: float  # when it must have ended for none of them to lose what he runs for


class Shortlist:
    """Images of one stage, worth most first; at least one.

    Larger batches are cheaper per image but hold images worth less, and whoever is too near his
    deadline must be left out of them; joined batches are priced with the joining. So sizes are
    tried, and what gains most per second is taken; where it gains no faster, nobody is joined.

    Args:
        candidates: Who.
        prices: Of their model.
        now: The present instant.
        has_rivals: Whether others wait too.
    """

    def __init__(
        self, candidates: Sequence[Candidate], prices: ModelPrices, now: float, *, has_rivals: bool
    ) -> None:
        self._now = now
        self._members = [member for member, _ in candidates]
        self._stage = self._members[0].stage
        stage_index = self._stage.stage_index
        self._classify = [
            is_classified(member, prices, now, target=bucket.target if has_rivals else None)
            for member, bucket in candidates
        ]
        trunk_s, classifier_s = prices.step_s[stage_index]
        step_s = (trunk_s, trunk_s + classifier_s)
        # What this stage contributes to each one's gain, by its part of the way.
        self._gains = [
            bucket.worth * step_s[classify]
            for (_, bucket), classify in zip(candidates, self._classify, strict=True)
        ]
        rest_s = prices.alone_s[stage_index + 1]
        self._finish_by = [
            member.answer_by - rest_s[bucket.target] for member, bucket in candidates
        ]

    def is_in_time(self, stage_costs: StageCosts) -> bool:
        """Whether all of them could run together without anybody being late."""
        num_classified = sum(self._classify)
        batch_s = stage_costs.expected_s(self._stage, len(self._members), num_classified)
        return self._now + batch_s <= min(self._finish_by)

    def best_offer(self, stage_costs: StageCosts, turn: Turn, max_size: int) -> Offer | None:
        """Return the batch that gains most per second."""
        totals = _Totals(
            list(accumulate(self._gains)),
            list(accumulate(self._classify)),
            list(accumulate(self._finish_by, min)),
        )
        best: _Trial | None = None
        size = min(max_size, len(self._members))
        while size:
            trial = self._try(stage_costs, totals, size, turn.limit_s)
            if trial is not None and (best is None or trial.gain_rate > best.gain_rate):
                best = trial
            is_full = best is not None and len(best.places) == size
            if is_full and self._gains[size - 1] == self._gains[0]:
                break  # smaller batches are dearer, and hold nobody who is worth more
            size //= 2
        return None if best is None else self._offer(best)

    def _try(
        self, stage_costs: StageCosts, totals: "_Totals", size: int, limit_s: float
    ) -> "_Trial | None":
        batch_s = stage_costs.expected_s(self._stage, size, totals.num_classified[size - 1])
        if size > 1:
            if batch_s > limit_s:
                return None
            if self._now + batch_s > totals.finish_by[size - 1]:
                return self._try_without_the_tightest(stage_costs, size)
        return _Trial(range(size), batch_s, totals.gains[size - 1] / (batch_s + HANDLING_S))

    def _try_without_the_tightest(self, stage_costs: StageCosts, size: int) -> "_Trial | None":
        """Leave out who would be too late in a batch as large as this; others move up."""
        num_classified = min(size, sum(self._classify))
        ends_at = self._now + stage_costs.expected_s(self._stage, size, num_classified)
        fitting = [place for place, due_at in enumerate(self._finish_by) if due_at >= ends_at]
        places = fitting[:size]
        if not places:
            return None
        num_classified = sum(self._classify[place] for place in places)
        batch_s = stage_costs.expected_s(self._stage, len(places), num_classified)
        gain = sum(self._gains[place] for place in places)
        return _Trial(places, batch_s, gain / (batch_s + HANDLING_S))

    def _offer(self, trial: "_Trial") -> Offer:
        members = [self._members[place] for place in trial.places]
        classify = [self._classify[place] for place in trial.places]
        return Offer(
            StageBatch(self._stage, members, classify, trial.batch_s, Kind.OPTIONAL),
            trial.gain_rate,
            min(self._finish_by[place] for place in trial.places),
        )


@dataclass(slots=True)
class _Totals:
    """Of the first image, the first two, and so on."""

    gains: list[float]
    num_classified: list[int]
    finish_by: list[float]


@dataclass(slots=True)
class _Trial:
    """What a batch would bring."""

    places: Sequence[int]  # on the shortlist
    batch_s: float
    gain_rate: float
