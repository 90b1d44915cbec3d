"""How much of a deadline admission keeps free, learnt from those it admitted in vain. Pure.

Admission lets requests in as long as their first answers are expected in time. Under overload that
fills the queue to the brim, and then whatever takes longer than expected makes somebody late who
could have been told at once. So it keeps a cushion, as large as it takes for all but a few to have
their answers.

Source: Robbins and Monro 1951, "A Stochastic Approximation Method", Ann. Math. Stat. 22(3): a step
up for each that failed, a small one down for each that did not, settles where the wanted share
fails.
"""

from typing import Final

_FAILING: Final = 0.003  # share of those admitted that may have no answer in time
_STEP: Final = 0.03  # of a deadline
_MOST: Final = 0.5


class Cushion:
    """The part of a deadline that is kept free. Mutable; guarded by the engine's lock.

    Attributes:
        part: In ``[0, 0.5]``.
    """

    def __init__(self) -> None:
        self.part = 0.0

    def heard(self, *, is_answered: bool) -> None:
        """Learn whether somebody who was admitted had a first answer in time."""
        step = -_STEP * _FAILING if is_answered else _STEP * (1.0 - _FAILING)
        self.part = min(max(self.part + step, 0.0), _MOST)
