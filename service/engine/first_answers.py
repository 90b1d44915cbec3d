"""What is learnt from first answers that came, and from those that did not. Pure."""

from service.engine.cohort import InFlightCohort
from service.engine.cushion import Cushion
from service.engine.going_rate import GoingRate
from service.engine.request import Terms
from service.errors import Overloaded, RequestRejected


class FirstAnswers:
    """Tells of first answers whoever learns from them. Mutable; guarded by the engine's lock.

    Args:
        cushion: That admission keeps.

    Attributes:
        going_rate: The price of lane time.
    """

    def __init__(self, cushion: Cushion) -> None:
        self.going_rate = GoingRate()
        self._cushion = cushion

    def came(self, cohort: InFlightCohort, now: float) -> None:
        """Take in that an image of a cohort in flight has its first answer."""
        self._heard(cohort, now, is_answered=True)

    def ran_out(self, cohort: InFlightCohort, now: float) -> None:
        """Take in that a cohort's time is up, whether its images have answers or not."""
        for image in cohort.images:
            if image.answered_exit < 0:
                self._heard(cohort, now, is_answered=False)

    def refused(self, terms: Terms, refused: RequestRejected, now: float) -> None:
        """Take in that somebody was not let in."""
        if terms.deadline_at is not None and isinstance(refused, Overloaded):
            self.going_rate.missed(now)

    def _heard(self, cohort: InFlightCohort, now: float, *, is_answered: bool) -> None:
        if cohort.deadline_at is not None and cohort.deadline_at > cohort.arrived_at:
            self._cushion.heard(is_answered=is_answered)
            if is_answered:
                deadline_s = cohort.deadline_at - cohort.arrived_at
                self.going_rate.heard((now - cohort.arrived_at) / deadline_s, now)
            else:
                self.going_rate.missed(now)
