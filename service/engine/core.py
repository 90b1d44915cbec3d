"""The engine as a state machine: who is admitted, which batch runs next, who is told what.

Pure and synchronous: no clock, no thread, no lock, no pixels, no logits but those it passes on.
The server's lanes and the simulator drive this very same code; callers hold the engine's lock.
"""

from collections.abc import Mapping, Sequence

from service.backends.base import ModelKey, StageKey
from service.engine.admission import AdmissionLedger
from service.engine.cohort import EngineModel, InFlightCohort, Settlement
from service.engine.first_answers import FirstAnswers
from service.engine.gate import Gate
from service.engine.image import Ending, InFlightImage
from service.engine.kept_batches import KeptBatches
from service.engine.lane_runs import LaneRuns
from service.engine.margin import AnswerMargin
from service.engine.member import Member
from service.engine.observer import Observer
from service.engine.pricing import PriceList
from service.engine.request import EngineLimits, ExitReason, ExitRecord, ServedModel
from service.engine.scheduler import StageScheduler
from service.engine.settling import give_reasons, report, settlement_of
from service.engine.stage_costs import StageCosts
from service.engine.stage_run import StageResult, StageRun


class EngineCore:
    """Admits cohorts, hands batches to lanes and settles everybody. Mutable; guard it by one lock.

    Args:
        models: Everything that may be asked for.
        stage_costs: Expected times; the core lets them learn.
        limits: How much may be in flight.
        margin: How long before its deadline a request must be answered.
        num_lanes: That run batches side by side.
        can_join: Whether features of different handles can run together.
        observer: Hears of everything countable.
    """

    def __init__(
        self,
        *,
        models: Mapping[ModelKey, ServedModel],
        stage_costs: StageCosts,
        limits: EngineLimits,
        margin: AnswerMargin,
        num_lanes: int,
        can_join: bool,
        observer: Observer,
    ) -> None:
        self.models = {key: EngineModel.of(model) for key, model in models.items()}
        self.ledger = AdmissionLedger(limits, margin, num_lanes=num_lanes)
        prices = {
            key: PriceList(model, stage_costs.times(key), margin, num_lanes=num_lanes)
            for key, model in models.items()
        }
        self.first_answers = FirstAnswers(self.ledger.cushion)
        self.gate = Gate(self.ledger, prices, observer, self.first_answers)
        self.lanes = LaneRuns(
            models, self.ledger, stage_costs, observer=observer, num_lanes=num_lanes
        )
        self.cohorts: set[InFlightCohort] = set()  # begun and not settled
        self._stage_costs = stage_costs
        self._observer = observer
        self._scheduler = StageScheduler(
            stage_costs,
            {key: model.gain_table for key, model in models.items()},
            can_join=can_join,
            background_share=limits.background_share,
        )
        self._settlements: list[Settlement] = []
        self._kept = KeptBatches(self.ledger, stage_costs, num_lanes=num_lanes)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in flight and no lane at work."""
        return not self.ledger.num_charges and not self.lanes.num_at_work

    @property
    def has_waiting(self) -> bool:
        """Whether images wait for a stage."""
        return not self._scheduler.is_empty

    def depth(self, stage: StageKey) -> int:
        """Return how many images wait for a stage."""
        return self._scheduler.depth(stage)

    def begin(self, cohort: InFlightCohort, now: float) -> None:
        """Let the images of an admitted cohort wait for stage 0; from here on they are counted.

        Not when their place was charged: that may come to nothing, as when a body never comes.
        """
        self.cohorts.add(cohort)
        self._observer.admitted(cohort.model.served.key, len(cohort.images))
        self._queue(cohort.begin(now), now)

    def settle(self, cohort: InFlightCohort, ending: Ending, now: float) -> Settlement | None:
        """Settle a cohort as things stand; nothing more is begun for it.

        Returns:
            What its caller is to be told, or None where it was settled before.
        """
        if cohort.is_closed:
            return None
        cohort.is_closed = True
        cohort.inputs = None
        self.cohorts.discard(cohort)
        if ending is Ending.DEADLINE:
            self.first_answers.ran_out(cohort, now)
            give_reasons(cohort, self._stage_costs)
        settlement = settlement_of(cohort, ending, now)
        for image in cohort.images:
            self._scheduler.remove(image)
            image.let_go()
        if cohort.owns_charge:
            self.ledger.release(cohort.charge)
        else:
            for image in cohort.images:
                self.ledger.discharge(cohort.charge, image.num_stages_begun)
        report(settlement, self._observer)
        return settlement

    def settle_all(self, ending: Ending, now: float) -> None:
        """Settle everybody; see `take_settlements`."""
        for cohort in tuple(self.cohorts):
            self._close(cohort, ending, now)

    def take_settlements(self) -> list[Settlement]:
        """Return what callers are to be told since the last time."""
        settlements = self._settlements
        if settlements:
            self._settlements = []
        return settlements

    def next_event_at(self) -> float | None:
        """Return when waiting work expires though no lane asks; None where none does."""
        return self._scheduler.next_event_at()

    def keeps_for(self, lane: int) -> bool:
        """Whether images wait for this lane and no other."""
        return self._kept.has(lane)

    def take(self, lane: int, now: float) -> StageRun | None:
        """Return what an idle lane runs next, charged to its images; None where it is to wait."""
        if self._kept.has(lane):
            kept, others = self._kept.take(lane, now)
            if kept is not None:
                return self.lanes.begin(lane, kept, now)
            self._queue(others, now)
        ledger = self.ledger
        dispatch = self._scheduler.next_batch(
            now,
            spare_s=ledger.spare_s(lane, now),
            idle_lanes=self.lanes.num_idle,
            longest_optional_s=ledger.longest_optional_s(now),
            going_rate=self.first_answers.going_rate.price(now),
        )
        batch = dispatch.batch
        if not (dispatch.expired or dispatch.crowded_out):
            return None if batch is None else self.lanes.begin(lane, batch, now)
        self._stand(dispatch.expired, ExitReason.DEADLINE, now)
        self._stand(dispatch.crowded_out, ExitReason.LOAD, now)
        if batch is None:
            return None
        batch.leave_out_gone()  # cohorts whose other images had just run out of time
        return self.lanes.begin(lane, batch, now) if batch.members else self.take(lane, now)

    def finish(self, lane: int, result: StageResult, now: float) -> None:
        """Leave with its images how a batch went, and let those who go on wait for what is next."""
        going: list[InFlightImage] = []
        for at, image in self.lanes.end(lane, result, now).leave(result):
            if at in result.failures:
                self._failed(image, result.failures[at], now)
            elif self._goes_on(image, result.records.get(at), now):
                going.append(image)
        if going:
            self._go_on(lane, going, now)

    def _goes_on(self, image: InFlightImage, record: ExitRecord | None, now: float) -> bool:
        """Decide for a single request, which is settled where it goes no further."""
        if record is not None:
            if image.answered_exit < 0:
                self.first_answers.came(image.cohort, now)
            image.answer(record)
        cohort: InFlightCohort = image.cohort
        plan, stage_index = cohort.plan, image.stage.stage_index
        if plan is None:
            image.source = id(image.held)
            cohort.report(image.position, record)
            self._advance_if_complete(cohort, now)
            return False
        if record is not None:
            reason = plan.reason_to_leave(stage_index, record.confidence)
            if reason is not None:
                image.reason = reason
                self._close(cohort, Ending.FINISHED, now)
                return False
        cohort.inputs = None
        image.stage = cohort.model.stages[stage_index + 1]
        image.classify = plan.classify[stage_index + 1]
        return True

    def _go_on(self, lane: int, images: list[InFlightImage], now: float) -> None:
        """Let single requests wait for their next stage, or keep them for their lane."""
        source = id(images[0].held)
        for image in images:
            image.ready_at = now
            image.source = source
        is_alone = self._scheduler.is_empty and self.lanes.num_idle == 1
        if not self._kept.keep(lane, images, is_alone=is_alone):
            self._queue(images, now)

    def _failed(self, image: InFlightImage, message: str, now: float) -> None:
        image.failure = message
        cohort: InFlightCohort = image.cohort
        if cohort.plan is not None:
            self._close(cohort, Ending.FINISHED, now)
        else:
            cohort.report_failed(image.position)
            self._advance_if_complete(cohort, now)

    def _advance_if_complete(self, cohort: InFlightCohort, now: float) -> None:
        """Ask the policy of images that are decided together what runs next."""
        if cohort.num_waiting:
            return
        images = cohort.advance(now)
        if images:
            self._queue(images, now)
        else:
            self._close(cohort, Ending.FINISHED, now)

    def _queue(self, images: Sequence[InFlightImage], now: float) -> None:
        for image in images:
            image.ready_at = now
            self._scheduler.add(image)

    def _stand(self, members: Sequence[Member], reason: ExitReason, now: float) -> None:
        """Settle those whose next answer would come too late, with the one they have."""
        for image in members:
            cohort: InFlightCohort = image.cohort
            if not cohort.is_closed:
                cohort.images[image.position].reason = reason
                self._close(cohort, Ending.DEADLINE, now)

    def _close(self, cohort: InFlightCohort, ending: Ending, now: float) -> None:
        settlement = self.settle(cohort, ending, now)
        if settlement is not None:
            self._settlements.append(settlement)
