"""What lane time is worth to those who wait for their first answers. Pure.

Better answers are run in the gaps between first ones, and each makes the next first answer wait.
While those come early in their deadlines that costs nobody anything; when they come late, the next
ones come too late, and a refusal costs far more than a better answer gains. So lane time has a
price, in expected gain per second, below which an image stays with the answer it has. The price
rises while first answers come late and falls while they come early, like that of a congested link.

Source: Kelly, Maulloo and Tan 1998, "Rate control for communication networks: shadow prices,
proportional fairness and stability", J. Oper. Res. Soc. 49(3), the dual algorithm.
"""

import math
from typing import Final

_TARGET_PART: Final = 0.3  # of a deadline, on average, at which a first answer comes in good time
# One that never comes, in deadlines: what it costs is worth many better answers.
_MISSED_PART: Final = 5.0
_NEWEST_WEIGHT: Final = 0.03  # of a first answer: some thirty count
_STEP: Final = 60.0  # by how many e-folds a second the price rises at twice the target
_LEAST: Final = 0.5  # per second; an image is worth more if it gains 0.01 with 20 ms
_MOST: Final = 1000.0  # nobody is worth more
_LONGEST_S: Final = 0.1  # between two first answers; longer, and there is no telling


class GoingRate:
    """The price. Mutable; guarded by the engine's lock."""

    def __init__(self) -> None:
        self._part = 0.0  # of their deadlines that first answers took lately
        self._log_price = math.log(_LEAST)
        self._heard_at = -math.inf

    def heard(self, part: float, now: float) -> None:
        """Learn from a first answer.

        Args:
            part: Of its deadline that it took, from arrival on.
            now: The present instant.
        """
        self._hear(min(part, 1.0), now)

    def missed(self, now: float) -> None:
        """Learn that somebody has no first answer: refused for want of time, or let in in vain."""
        self._hear(_MISSED_PART, now)

    def price(self, now: float) -> float:
        """Return the gain per second from which on an image may run deeper; 0 while all may."""
        self._let_pass(now)
        if self._log_price <= math.log(_LEAST):
            return 0.0
        return math.exp(self._log_price)

    def _hear(self, part: float, now: float) -> None:
        self._let_pass(now)
        self._part += _NEWEST_WEIGHT * (part - self._part)

    def _let_pass(self, now: float) -> None:
        """Move the price by what first answers were like since the last look."""
        elapsed_s = now - self._heard_at
        self._heard_at = now
        if elapsed_s > _LONGEST_S:
            # Nobody was there to be in anybody's way.
            self._part, self._log_price = 0.0, math.log(_LEAST)
            return
        excess = max(-1.0, min(self._part / _TARGET_PART - 1.0, 1.0))
        log_price = self._log_price + _STEP * excess * elapsed_s
        self._log_price = max(math.log(_LEAST), min(log_price, math.log(_MOST)))
