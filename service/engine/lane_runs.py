"""What each lane runs: charged when it begins, accounted for when it ends. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, cast

from service.backends.base import ModelKey
from service.engine.admission import AdmissionLedger, Charge
from service.engine.features import HeldFeatures
from service.engine.image import InFlightImage
from service.engine.observer import Observer
from service.engine.request import ServedModel
from service.engine.stage_batch import StageBatch
from service.engine.stage_costs import StageCosts
from service.engine.stage_run import StageResult, StageRun, in_row_order

_WEDGED_P99S: Final = 10  # so many times its 99th percentile, and a stage is not slow but stuck


class EndedRun(NamedTuple):
    """A batch that is over."""

    run: StageRun
    held: HeldFeatures | None  # what it left
    elapsed_s: float

    def leave(self, result: StageResult) -> Iterator[tuple[int, InFlightImage]]:
        """Leave its time and its features with its images.

        Returns:
            Positions, and those who are in flight yet; each is looked at when its turn comes, as
            what is decided for one may settle another.
        """
        held, share_s = self.held, self.elapsed_s / len(self.run.images)
        for at, image in enumerate(self.run.images):
            image.leave_run()
            if image.is_gone:  # settled meanwhile: nothing of this is its own any more
                if held is not None and at not in result.failures:
                    held.let_go()
                continue
            image.compute_s += self.elapsed_s
            image.compute_share_s += share_s
            if at not in result.failures:
                image.held = held
                image.row = at if result.rows is None else result.rows[at]
            yield at, image


class LaneRuns:
    """Begins and ends the batches of all lanes. Mutable; guarded by the engine's lock.

    Args:
        models: Everything that may run.
        ledger: Discharged of what begins.
        stage_costs: Learn from what ran.
        observer: Hears of it.
        num_lanes: How many there are.
    """

    def __init__(
        self,
        models: Mapping[ModelKey, ServedModel],
        ledger: AdmissionLedger,
        stage_costs: StageCosts,
        *,
        observer: Observer,
        num_lanes: int,
    ) -> None:
        self._models = dict(models)
        self._ledger = ledger
        self._stage_costs = stage_costs
        self._observer = observer
        self._runs: list[StageRun | None] = [None] * num_lanes
        self.num_lanes = num_lanes
        self.num_idle = num_lanes  # of those that do not rest
        self.num_resting = 0

    @property
    def num_at_work(self) -> int:
        """How many run a batch."""
        return self.num_lanes - self.num_idle - self.num_resting

    def rest(self, lane: int) -> None:
        """Have an idle lane take nothing until it is to `resume`."""
        self.num_idle -= 1
        self.num_resting += 1
        self._ledger.lane_rests(lane)

    def resume(self, lane: int) -> None:
        """Have a lane that rests take batches again."""
        self.num_idle += 1
        self.num_resting -= 1
        self._ledger.batch_ended(lane)

    def begin(self, lane: int, batch: StageBatch, now: float) -> StageRun:
        """Charge a batch to its images and let a lane run it."""
        stage_index = batch.stage.stage_index
        model = self._models[batch.stage.model]
        images: Sequence[InFlightImage] = cast("list[InFlightImage]", batch.members)
        classify: Sequence[bool] = batch.classify
        if stage_index:
            images, classify = in_row_order(images, classify)
        run = StageRun(
            lane, batch.stage, model, images, classify, now, batch.expected_s, batch.kind
        )
        if not stage_index:
            run.pixels = [image.cohort.inputs for image in images]
        trunk_macs = model.costs.trunk_macs[stage_index]
        whole_macs = model.costs.stage_macs[stage_index]
        for image, is_classified in zip(images, classify, strict=True):
            image.run = run
            price = whole_macs if is_classified else trunk_macs
            image.spent_macs += price
            run.macs += price
            charge: Charge = image.cohort.charge
            if charge.owed_us:
                self._ledger.discharge(charge, stage_index, stage_index)
        self._runs[lane] = run
        self.num_idle -= 1
        self._ledger.batch_began(lane, now + batch.expected_s)
        return run

    def end(self, lane: int, result: StageResult, now: float) -> EndedRun:
        """Take in that a lane's batch is over; its images are yet to hear."""
        run = self._take_off(lane)
        if run is None:
            raise ValueError(f"lane {lane} ran nothing")
        elapsed_s = now - run.begun_at
        for at in result.not_begun:
            _refund(run, at)
        self._note(run, result, elapsed_s)
        num_users = len(run.images) - len(result.failures)
        held = None
        if result.features is not None and num_users:
            held = HeldFeatures(result.features, num_users=num_users, meter=self._ledger.features)
        return EndedRun(run, held, elapsed_s)

    def forget(self, lane: int) -> None:
        """Take in that a lane ended in the middle of a batch; its images are settled by others."""
        run = self._take_off(lane)
        for image in () if run is None else run.images:
            image.leave_run()

    def wedged(self, now: float, *, least_s: float) -> StageRun | None:
        """Return a batch that runs for so long that its stage must hang; None where none does.

        Args:
            now: The present instant.
            least_s: No stage that is quicker counts as hanging.
        """
        for run in self._runs:
            if run is not None and now - run.begun_at > least_s:
                p99_s = self._stage_costs.p99_s(run.stage, len(run.images))
                if now - run.begun_at > _WEDGED_P99S * p99_s:
                    return run
        return None

    def _take_off(self, lane: int) -> StageRun | None:
        run, self._runs[lane] = self._runs[lane], None
        if run is not None:
            self.num_idle += 1
            self._ledger.batch_ended(lane)
        return run

    def _note(self, run: StageRun, result: StageResult, elapsed_s: float) -> None:
        size, observer = len(run.images) - len(result.not_begun), self._observer
        if not size:
            return
        if result.error is not None:
            observer.stage_failed(run.stage, batch_size=size, macs=run.macs, error=result.error)
            return
        num_classified = run.num_classified - sum(run.classify[at] for at in result.not_begun)
        self._stage_costs.observe(run.stage, size, num_classified, elapsed_s)
        observer.stage_finished(
            run.stage,
            batch_size=size,
            num_classified=num_classified,
            elapsed_s=elapsed_s,
            macs=run.macs,
        )


def _refund(run: StageRun, at: int) -> None:
    """Take back what an image was charged whose pixels the backend did not even take in."""
    costs = run.model.costs
    prices = costs.stage_macs if run.classify[at] else costs.trunk_macs
    run.images[at].spent_macs -= prices[run.stage.stage_index]
    run.macs -= prices[run.stage.stage_index]
