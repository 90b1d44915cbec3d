"""All that is admitted, behind the engine's one lock: what event loop and lanes both touch."""

import threading
from collections.abc import Callable, Mapping, Sequence

from service.engine.admission import AdmissionLedger, Charge, Claim
from service.engine.cohort import InFlightCohort, Settlement
from service.engine.request import EngineLimits, ExitReason
from service.engine.slot import Ending
from service.engine.stage_run import Runner, StageResult


class InFlight:
    """Admits, charges and closes. Thread-safe: every method takes the engine's lock, briefly.

    A stage is charged and a cohort closed under the same lock, so nothing begins for a cohort
    that was settled, and what it is told it cost includes all that was begun.

    Args:
        limits: How much may be in flight.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self._lock = threading.Lock()
        self._ledger = AdmissionLedger(limits)
        self._when_empty: list[Callable[[], None]] = []

    @property
    def num_images(self) -> int:
        """Images in flight."""
        return self._ledger.num_in_flight

    @property
    def feature_bytes(self) -> int:
        """Bytes of features charged for them."""
        return self._ledger.feature_bytes

    @property
    def owed_s(self) -> float:
        """Expected seconds until each of them has an answer."""
        with self._lock:
            return self._ledger.owed_s

    def check(self, claim: Claim, now: float) -> None:
        """Say whether a claim could be admitted; raises what `AdmissionLedger.check` does."""
        with self._lock:
            self._ledger.check(claim, now)

    def admit(self, claim: Claim, now: float) -> Charge:
        """Admit a claim or refuse it; raises what `AdmissionLedger.check` does."""
        with self._lock:
            self._ledger.check(claim, now)
            return self._ledger.admit(claim)

    def retry_after_s(self, now: float) -> float:
        """Return when the present backlog should be gone."""
        with self._lock:
            return self._ledger.retry_after_s(now)

    def spare_s(self, now: float) -> float:
        """Return for how long other work may run before somebody misses his first exit."""
        with self._lock:
            return self._ledger.spare_s(now)

    def begin(self, runners: Sequence[Runner], *, now: float, ends_at: float) -> list[Runner]:
        """Charge a stage to those of a batch whose cohort is not settled, and return them."""
        with self._lock:
            running = [runner for runner in runners if not runner.cohort.is_closed]
            for runner in running:
                runner.cohort.slots[runner.member.position].begin_stage(
                    runner.macs, now, batch_size=len(running)
                )
            if running:
                self._ledger.batch_began(ends_at)
        return running

    def end(self, results: Sequence[StageResult], now: float) -> None:
        """Leave in the slots how a batch went; settled cohorts have no use for it."""
        with self._lock:
            self._ledger.batch_ended()
            for result in results:
                if not result.runner.cohort.is_closed:
                    self._end_one(result, now)

    def refuse_inputs(self, cohort: InFlightCohort, message: str, now: float) -> None:
        """Note that the backend did not take a cohort's images."""
        with self._lock:
            for slot in () if cohort.is_closed else cohort.slots:
                slot.fail(now, message)

    def note_reasons(self, cohort: InFlightCohort, reasons: Mapping[int, ExitReason]) -> None:
        """Note why images of a cohort stand where they stand, should its time run out."""
        with self._lock:
            for position, reason in reasons.items():
                cohort.slots[position].reason = reason

    def close(self, cohort: InFlightCohort, ending: Ending, now: float) -> Settlement | None:
        """Settle a cohort as things stand.

        Returns:
            What its caller is to be told, or None where it was settled before.
        """
        with self._lock:
            if cohort.is_closed:
                return None
            cohort.is_closed = True
            elapsed_s = now - cohort.request.arrived_at
            return Settlement(
                cohort,
                ending,
                tuple(slot.outcome(ending, now=now, elapsed_s=elapsed_s) for slot in cohort.slots),
            )

    def retire(self, cohort: InFlightCohort) -> None:
        """Discharge a settled cohort, when nothing runs for it any more."""
        if cohort.owns_charge:
            self.release(cohort.charge)
            return
        with self._lock:
            for slot in cohort.slots:
                for stage_index in range(slot.num_stages_ended, cohort.request.mandatory_exit + 1):
                    self._ledger.stage_ran(cohort.charge, stage_index, 1)

    def release(self, charge: Charge) -> None:
        """Discharge what was admitted; a second time does nothing."""
        with self._lock:
            self._ledger.release(charge)

    def call_when_empty(self, callback: Callable[[], None]) -> None:
        """Have `tell_if_empty` call back, once, from whichever thread finds nothing in flight."""
        with self._lock:
            self._when_empty.append(callback)

    def tell_if_empty(self) -> None:
        """Call those back who wait until nothing is in flight, if nothing is."""
        if not self._when_empty:
            return
        with self._lock:
            if not self._ledger.is_empty:
                return
            callbacks, self._when_empty = self._when_empty, []
        for callback in callbacks:
            callback()

    def _end_one(self, result: StageResult, now: float) -> None:
        member, cohort = result.runner.member, result.runner.cohort
        slot = cohort.slots[member.position]
        if result.failure is not None:
            slot.fail(now, result.failure)
            return
        slot.end_stage(now, result.record)
        self._ledger.stage_ran(cohort.charge, member.stage.stage_index, 1)
