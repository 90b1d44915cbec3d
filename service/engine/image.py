"""What one image in flight has so far, and what its caller is told when it ends."""

from enum import Enum
from typing import TYPE_CHECKING

from service.backends.base import StageKey
from service.engine.features import HeldFeatures
from service.engine.member import Kind, Member, Outset
from service.engine.observer import WasteCause
from service.engine.request import Answer, ExitReason, ExitRecord, ImageOutcome
from service.errors import BackendFailed, DeadlineMissed, EngineStopped, ReplicaLost, ServiceError

if TYPE_CHECKING:
    from service.engine.cohort import InFlightCohort
    from service.engine.stage_run import StageRun


class Ending(Enum):
    """How a cohort came to be settled."""

    FINISHED = "finished"  # nobody goes on
    DEADLINE = "deadline"  # time is up; whatever still runs is not waited for
    LEFT = "left"  # nobody waits for it any more
    STOPPED = "stopped"  # the engine ended
    LOST = "lost"  # a stage hangs, and the process with it


class InFlightImage(Member):
    """A member with its answers, its charge, its time and its features. Mutable.

    Guarded by the engine's lock: the lanes leave every answer here, and the deadline timer reads
    the best of them without asking a lane.
    """

    __slots__ = (
        "answered_macs",
        "compute_s",
        "compute_share_s",
        "failure",
        "held",
        "ready_at",
        "reason",
        "records",
        "row",
        "run",
        "spent_macs",
    )

    def __init__(
        self, cohort: "InFlightCohort", position: int, stage: StageKey, outset: Outset
    ) -> None:
        super().__init__(cohort, position, stage, outset)
        self.records: tuple[ExitRecord, ...] = ()
        self.failure: str | None = None
        self.reason: ExitReason | None = None  # once it is known why it stands
        self.spent_macs = 0
        self.answered_macs = 0  # spent when the latest answer came
        self.compute_s = 0.0
        self.compute_share_s = 0.0
        self.run: StageRun | None = None  # in which it is at present
        self.ready_at = 0.0  # since when it has waited for its stage
        self.held: HeldFeatures | None = None  # what its next stage reads
        self.row = 0  # of that

    @property
    def num_stages_begun(self) -> int:
        """How many stages were charged to it."""
        return self.stage.stage_index + (self.run is not None)

    def count_time(self, now: float) -> None:
        """Add the time of the stage it is in, until now; whatever comes after is not counted."""
        if self.run is not None:
            elapsed_s = now - self.run.begun_at
            self.compute_s += elapsed_s
            self.compute_share_s += elapsed_s / len(self.run.images)

    def answer(self, record: ExitRecord) -> None:
        """Keep what a classifier said of it."""
        self.records = (*self.records, record) if self.records else (record,)
        self.answered_macs = self.spent_macs
        if record.exit_index >= self.mandatory_exit:
            self.answered_exit = record.exit_index
            self.confidence = record.confidence
            if self.kind is Kind.MANDATORY:
                self.kind = Kind.OPTIONAL
        cohort: InFlightCohort = self.cohort
        if cohort.heard is not None:
            cohort.heard(self.position, record)

    def leave_run(self) -> None:
        """Take in that its stage is over; what that read is needed no more."""
        self.run = None
        if self.held is not None:
            self.held.let_go()
            self.held = None

    def let_go(self) -> None:
        """Give up its features, unless a stage is reading them."""
        if self.held is not None and self.run is None:
            self.held.let_go()
            self.held = None

    def outcome(self, ending: Ending, *, elapsed_s: float, num_exits: int) -> ImageOutcome:
        """Return what the caller is told if it ends like this.

        Args:
            ending: How.
            elapsed_s: Since the request came.
            num_exits: Of the model.
        """
        if self.answered_exit >= 0 and ending is not Ending.STOPPED:
            record = self.records[-1]
            reason = self.reason or self._default_reason(ending, num_exits)
            answer = Answer(record, reason, self.records)
            return ImageOutcome(answer, None, self.spent_macs, self.compute_s, self.compute_share_s)
        error = self._error(ending, elapsed_s)
        return ImageOutcome(None, error, self.spent_macs, self.compute_s, self.compute_share_s)

    def wasted_macs(self, ending: Ending) -> int:
        """Return how much of what was spent is in no answer."""
        is_told = ending is not Ending.LEFT and ending is not Ending.STOPPED
        if is_told and self.answered_exit >= 0:
            return self.spent_macs - self.answered_macs
        return self.spent_macs

    def waste_cause(self, ending: Ending) -> WasteCause:
        """Return why it is in none."""
        if ending is Ending.LEFT:
            return WasteCause.LEFT
        if ending in {Ending.STOPPED, Ending.LOST}:
            return WasteCause.STOPPED
        return WasteCause.LATE if self.failure is None else WasteCause.FAILED

    def _default_reason(self, ending: Ending, num_exits: int) -> ExitReason:
        if self.failure is not None or ending is Ending.LOST:
            return ExitReason.FAILED
        stands_at_last = self.answered_exit == num_exits - 1
        return ExitReason.LAST_EXIT if stands_at_last else ExitReason.DEADLINE

    def _error(self, ending: Ending, elapsed_s: float) -> ServiceError:
        if ending is Ending.STOPPED:
            return EngineStopped()
        # An error of its own for every image: one that is raised twice drags a stranger's trace.
        if self.failure is not None:
            return BackendFailed(self.failure)
        if ending is Ending.LOST:
            return ReplicaLost()
        return DeadlineMissed(elapsed_s=elapsed_s)
