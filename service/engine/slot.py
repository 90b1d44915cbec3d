"""What one image in flight has so far, and what its caller is told when it ends."""

from enum import Enum

from service.engine.observer import WasteCause
from service.engine.request import Answer, ExitReason, ExitRecord, ImageOutcome
from service.errors import BackendFailed, DeadlineMissed, EngineStopped, ServiceError


class Ending(Enum):
    """How a cohort came to be settled."""

    FINISHED = "finished"  # nobody goes on
    DEADLINE = "deadline"  # time is up; whatever still runs is not waited for
    LEFT = "left"  # nobody waits for it any more
    STOPPED = "stopped"  # the engine ended


class ImageSlot:
    """Answers, charge and time of one image. Mutable; guarded by the lock of `InFlight`.

    The lane leaves every answer here, and the deadline timer reads the best of them without
    asking the lane.

    Args:
        mandatory_exit: The first exit that may answer.
        last_exit: Of the model.
    """

    __slots__ = (
        "_answered_macs",
        "_batch_size",
        "_begun_at",
        "_compute_s",
        "_compute_share_s",
        "_failure",
        "_last_exit",
        "_mandatory_exit",
        "_records",
        "num_stages_ended",
        "reason",
        "spent_macs",
    )

    def __init__(self, *, mandatory_exit: int, last_exit: int) -> None:
        self._mandatory_exit = mandatory_exit
        self._last_exit = last_exit
        self._records: tuple[ExitRecord, ...] = ()
        self._failure: str | None = None
        self._answered_macs = 0  # spent when the latest answer came
        self._compute_s = 0.0
        self._compute_share_s = 0.0
        self._batch_size = 1  # of the stage that runs
        self._begun_at: float | None = None  # of the stage that runs
        self.num_stages_ended = 0
        self.spent_macs = 0
        self.reason: ExitReason | None = None  # once its policy has said why it stands

    @property
    def has_answer(self) -> bool:
        """Whether it could be answered now."""
        return bool(self._records) and self._records[-1].exit_index >= self._mandatory_exit

    def begin_stage(self, macs: int, now: float, *, batch_size: int) -> None:
        """Charge a stage that runs from now on, together with others of its batch."""
        self.spent_macs += macs
        self._batch_size = batch_size
        self._begun_at = now

    def end_stage(self, now: float, record: ExitRecord | None) -> None:
        """Note that its stage ended well, and what the classifier said if it looked."""
        self._count_time(now)
        self.num_stages_ended += 1
        if record is not None:
            self._records = (*self._records, record)
            self._answered_macs = self.spent_macs

    def fail(self, now: float, message: str) -> None:
        """Note that its stage failed."""
        self._count_time(now)
        self._failure = message

    def outcome(self, ending: Ending, *, now: float, elapsed_s: float) -> ImageOutcome:
        """Return what the caller is told if it ends like this, now.

        Args:
            ending: How.
            now: The present instant.
            elapsed_s: Since the request came.
        """
        self._count_time(now)
        times = (self._compute_s, self._compute_share_s)
        if ending is not Ending.STOPPED and self.has_answer:
            answer = Answer(self._records[-1], self._reason_or_default(), self._records)
            return ImageOutcome(answer, None, self.spent_macs, *times)
        return ImageOutcome(None, self._error(ending, elapsed_s), self.spent_macs, *times)

    def wasted_macs(self, ending: Ending) -> int:
        """Return how much of what was spent is in no answer."""
        is_answered = ending in {Ending.FINISHED, Ending.DEADLINE} and self.has_answer
        return self.spent_macs - self._answered_macs if is_answered else self.spent_macs

    def waste_cause(self, ending: Ending) -> WasteCause:
        """Return why it is in none."""
        if ending is Ending.LEFT:
            return WasteCause.LEFT
        if ending is Ending.STOPPED:
            return WasteCause.STOPPED
        return WasteCause.LATE if self._failure is None else WasteCause.FAILED

    def _count_time(self, now: float) -> None:
        if self._begun_at is not None:
            self._compute_s += now - self._begun_at
            self._compute_share_s += (now - self._begun_at) / self._batch_size
            self._begun_at = None

    def _reason_or_default(self) -> ExitReason:
        if self.reason is not None:
            return self.reason
        if self._failure is not None:
            return ExitReason.FAILED
        stands_at_last = self._records[-1].exit_index == self._last_exit
        return ExitReason.LAST_EXIT if stands_at_last else ExitReason.DEADLINE

    def _error(self, ending: Ending, elapsed_s: float) -> ServiceError:
        if ending is Ending.STOPPED:
            return EngineStopped()
        # An error of its own for every image: one that is raised twice drags a stranger's trace.
        if self._failure is not None:
            return BackendFailed(self._failure)
        return DeadlineMissed(elapsed_s=elapsed_s)
