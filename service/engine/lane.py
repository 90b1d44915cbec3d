"""A lane's loop: take a batch, run it, apply exits, settle answers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from model_store.policies.base import Step
from service.backends.base import StageBackend, StageKey
from service.engine.clock import Clock
from service.engine.cohort import InFlightCohort, Settlement
from service.engine.in_flight import InFlight
from service.engine.inbox import Inbox, Mail
from service.engine.observer import Observer
from service.engine.scheduler import StageBatch, StageScheduler
from service.engine.slot import Ending
from service.engine.stage_costs import StageCosts
from service.engine.stage_run import Runner, StageResult, in_row_order, run_stage
from service.errors import BackendFailed


@dataclass(frozen=True, slots=True)
class LaneParts:
    """What a lane works with; all but the scheduler is shared with the event loop."""

    backend: StageBackend
    inbox: Inbox
    in_flight: InFlight
    stage_costs: StageCosts
    clock: Clock
    observer: Observer
    post: Callable[[Sequence[Settlement]], None]  # how settlements get back to who waits


class Lane:
    """Drives the backend, one stage batch after another. Mutable; owned by the thread in `run`.

    However `run` ends, everybody in flight is settled.

    Args:
        parts: What it works with.
    """

    def __init__(self, parts: LaneParts) -> None:
        self._parts = parts
        self._scheduler = StageScheduler(parts.stage_costs, can_join=parts.backend.can_join)
        self._cohorts: dict[int, InFlightCohort] = {}
        self._settlements: list[Settlement] = []

    def run(self) -> None:
        """Turn until the inbox is closed. A defect ends the loop and shows as its exception."""
        try:
            while self.turn(may_wait=True):
                pass
        finally:
            self.stop()

    def turn(self, *, may_wait: bool) -> bool:
        """Take in what came, run at most one batch and send back whatever that settled.

        Args:
            may_wait: Whether to sleep on the inbox when there is nothing to run.

        Returns:
            False once the inbox is closed.
        """
        mail = self._parts.inbox.collect(may_wait=may_wait and self._scheduler.is_empty)
        # Known first and begun after, so that a defect on the way leaves nobody unsettled.
        self._cohorts.update((cohort.cohort_id, cohort) for cohort in mail.arrivals)
        if mail.is_closed:
            return False
        self._take_in(mail)
        batch = self._next_batch()
        self._send_settlements()
        if batch is not None:
            self._run_batch(batch)
            self._send_settlements()
        return True

    def stop(self) -> None:
        """Settle everybody in flight; nothing is run."""
        self._parts.inbox.close()
        mail = self._parts.inbox.collect(may_wait=False)
        self._cohorts.update((cohort.cohort_id, cohort) for cohort in mail.arrivals)
        for cohort in tuple(self._cohorts.values()):
            self._settle(cohort, Ending.STOPPED)
        self._send_settlements()

    def _take_in(self, mail: Mail) -> None:
        for cohort in mail.arrivals:
            self._begin(cohort)
        for cohort in mail.dropped:
            self._retire(cohort)

    def _begin(self, cohort: InFlightCohort) -> None:
        if cohort.is_closed or cohort.inputs is None:
            self._retire(cohort)
            return
        try:
            handle = self._parts.backend.put(cohort.request.model.key, cohort.inputs)
        except BackendFailed as error:
            now = self._parts.clock.now()
            self._parts.in_flight.refuse_inputs(cohort, str(error), now)
            self._settle(cohort, Ending.FINISHED)
            return
        cohort.take_in(handle)
        self._queue(cohort, cohort.request.policy.start(self._parts.clock.now()))

    def _queue(self, cohort: InFlightCohort, steps: Sequence[Step]) -> None:
        model = cohort.request.model.key
        for member in cohort.queue(steps, self._parts.stage_costs.times(model)):
            self._scheduler.add(member)
        self._tell_depths(StageKey(model, step.stage_index) for step in steps)

    def _next_batch(self) -> StageBatch | None:
        now = self._parts.clock.now()
        spare_s = self._parts.in_flight.spare_s(now)
        dispatch = self._scheduler.next_batch(now, spare_s=spare_s)
        self._tell_depths({member.stage for member in dispatch.expired})
        for cohort_id in {member.cohort_id for member in dispatch.expired}:
            self._settle(self._cohorts[cohort_id], Ending.DEADLINE)
        return dispatch.batch

    def _run_batch(self, batch: StageBatch) -> None:
        self._tell_depths([batch.stage])
        # Cohorts are gone whose other images had just run out of time.
        runners = in_row_order(
            [
                Runner(self._cohorts[member.cohort_id], member)
                for member in batch.members
                if member.cohort_id in self._cohorts
            ]
        )
        size, num_classified = len(batch.members), batch.num_classified
        expected_s = self._parts.stage_costs.expected_s(batch.stage, size, num_classified)
        now = self._parts.clock.now()
        running = self._parts.in_flight.begin(runners, now=now, ends_at=now + expected_s)
        if running:
            self._apply(self._run_stage(batch.stage, running, now))

    def _run_stage(
        self, stage: StageKey, runners: Sequence[Runner], begun_at: float
    ) -> Sequence[StageResult]:
        observer, size = self._parts.observer, len(runners)
        macs = sum(runner.macs for runner in runners)
        try:
            results = run_stage(self._parts.backend, stage, runners)
        except BackendFailed as error:
            observer.stage_failed(stage, batch_size=size, macs=macs, error=error)
            return [StageResult(runner, None, None, str(error)) for runner in runners]
        elapsed_s = self._parts.clock.now() - begun_at
        num_classified = sum(runner.member.classify for runner in runners)
        self._parts.stage_costs.observe(stage, size, num_classified, elapsed_s)
        observer.stage_finished(
            stage, batch_size=size, num_classified=num_classified, elapsed_s=elapsed_s, macs=macs
        )
        return results

    def _apply(self, results: Sequence[StageResult]) -> None:
        now = self._parts.clock.now()
        self._parts.in_flight.end(results, now)
        cohorts: dict[int, InFlightCohort] = {}
        for result in results:
            cohort, position = result.runner.cohort, result.runner.member.position
            cohorts[cohort.cohort_id] = cohort
            if result.failure is None:
                cohort.report(position, result.features, result.record)
            else:
                cohort.report_failed(position)
        for cohort in cohorts.values():
            if cohort.num_waiting == 0 and not cohort.is_closed:
                self._advance(cohort, now)

    def _advance(self, cohort: InFlightCohort, now: float) -> None:
        policy, reports = cohort.request.policy, cohort.take_reports()
        steps = policy.advance(reports.confidences, reports.failed, now)
        if reasons := policy.reasons():
            self._parts.in_flight.note_reasons(cohort, reasons)
        if steps:
            self._queue(cohort, steps)
        else:
            self._settle(cohort, Ending.FINISHED)

    def _settle(self, cohort: InFlightCohort, ending: Ending) -> None:
        settlement = self._parts.in_flight.close(cohort, ending, self._parts.clock.now())
        if settlement is not None:
            self._settlements.append(settlement)
        self._retire(cohort)

    def _retire(self, cohort: InFlightCohort) -> None:
        if self._cohorts.pop(cohort.cohort_id, None) is None:
            return
        if cohort.num_waiting:
            self._tell_depths(self._scheduler.drop({cohort.cohort_id}))
        cohort.release()
        self._parts.in_flight.retire(cohort)

    def _send_settlements(self) -> None:
        settlements, self._settlements = self._settlements, []
        if settlements:
            self._parts.post(settlements)
        # Only now: who waits until nothing is in flight must not wake before those settled here.
        self._parts.in_flight.tell_if_empty()
        for settlement in settlements:
            settlement.report_to(self._parts.observer)

    def _tell_depths(self, stages: Iterable[StageKey]) -> None:
        for stage in stages:
            self._parts.observer.queue_changed(stage, self._scheduler.depth(stage))
