"""The one account of a budget. Thresholds and ranks propose; nothing runs that it has not charged.

Theorem: spent <= budget, and every image gets its first exit. For `left >= U·C_1` holds at the
start, U being the images not charged for their first exit yet; charging one lowers both sides by
C_1, and going deeper is granted only out of what is above. Confidences do not occur in this.
"""

from model_store.budget import BudgetInfeasible


class Ledger:
    """What is left of one window's budget, in integers. Mutable; owned by the window's policy.

    A charge comes before the stage it pays for and is never given back: a failed stage was spent.

    Args:
        budget_macs: B.
        first_exit_macs: C_1 of each image.
        num_images: M, each sure of its first exit.

    Raises:
        BudgetInfeasible: B < M·C_1.
    """

    def __init__(self, budget_macs: int, first_exit_macs: int, num_images: int) -> None:
        minimum_macs = num_images * first_exit_macs
        if budget_macs < minimum_macs:
            raise BudgetInfeasible(
                minimum_macs=minimum_macs, budget_macs=budget_macs, num_images=num_images
            )
        self._left_macs = budget_macs
        self._first_exit_macs = first_exit_macs
        self._num_uncharged = num_images

    @property
    def left_macs(self) -> int:
        """B less all that was charged."""
        return self._left_macs

    @property
    def free_macs(self) -> int:
        """What is left beyond the first exits still to be charged."""
        return self._left_macs - self._num_uncharged * self._first_exit_macs

    def charge_first_exits(self, num_images: int) -> None:
        """Charge C_1 for images that have not been charged yet.

        Raises:
            ValueError: There are fewer such images.
        """
        if num_images > self._num_uncharged:
            raise ValueError(f"{num_images} first exits, {self._num_uncharged} still to be charged")
        self._num_uncharged -= num_images
        self._left_macs -= num_images * self._first_exit_macs

    def charge(self, macs: int) -> bool:
        """Charge going deeper if it can be paid without touching anyone's first exit.

        Args:
            macs: Of all images that go on together, positive.

        Returns:
            Whether it was charged.
        """
        if macs > self.free_macs:
            return False
        self._left_macs -= macs
        return True
