"""The way around the scheduler: a batch that would only come back as it is goes straight on. Pure.

At full depth without deadlines that is most of them, and queueing an image costs as much as all
else that is done for it between two stages.
"""

from collections.abc import Sequence
from typing import cast

from service.engine.admission import AdmissionLedger
from service.engine.image import InFlightImage
from service.engine.member import Kind, Member
from service.engine.stage_batch import StageBatch
from service.engine.stage_costs import StageCosts


class KeptBatches:
    """Single requests that the lane which ran them runs on. Mutable; guarded by the engine's lock.

    Args:
        ledger: Knows whether anybody has a deadline.
        stage_costs: What stages are expected to take.
        num_lanes: How many there are.
    """

    def __init__(self, ledger: AdmissionLedger, stage_costs: StageCosts, *, num_lanes: int) -> None:
        self._ledger = ledger
        self._stage_costs = stage_costs
        self._kept: list[Sequence[InFlightImage]] = [()] * num_lanes

    def keep(self, lane: int, images: Sequence[InFlightImage], *, is_alone: bool) -> bool:
        """Keep images for their lane, unless others are to be asked first.

        Args:
            lane: Whose they are.
            images: Of one stage, all without a deadline or all with one; at least one.
            is_alone: Whether nobody else waits and no other lane could help.

        Returns:
            Whether they are kept. Without deadlines anywhere a full batch always is.
        """
        if images[0].kind is not Kind.BACKGROUND or self._has_deadlines:
            return False
        best_batch = self._stage_costs.best_batch(images[0].stage)
        if (len(images) < best_batch and not is_alone) or len(images) > best_batch:
            return False
        self._kept[lane] = images
        return True

    def has(self, lane: int) -> bool:
        """Whether a lane has some."""
        return bool(self._kept[lane])

    def take(self, lane: int, now: float) -> tuple[StageBatch | None, Sequence[InFlightImage]]:
        """Return what a lane goes on with, or who must queue because that may not be any more."""
        images = [image for image in self._kept[lane] if not image.is_gone]
        self._kept[lane] = ()
        if not images:
            return None, ()
        stage = images[0].stage
        classify = [bool(image.classify) for image in images]
        expected_s = self._stage_costs.expected_s(stage, len(images), sum(classify))
        if self._has_deadlines or expected_s > self._ledger.longest_optional_s(now):
            return None, images
        members = cast("list[Member]", images)
        return StageBatch(stage, members, classify, expected_s, Kind.BACKGROUND), ()

    @property
    def _has_deadlines(self) -> bool:
        return self._ledger.num_in_flight > self._ledger.num_background
