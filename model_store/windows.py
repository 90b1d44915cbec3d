"""One budget over a batch whose features do not fit at once: its windows, one after another.

Each window is a batch of its own with a plan of its own. What one leaves unspent goes to the next;
the last one gets all that is left, so rounding loses nothing.
"""

from dataclasses import dataclass

from model_store.budget import BudgetPlan, plan_budget
from model_store.costs import ExitCosts
from model_store.policies.base import WindowPolicy
from model_store.policies.choose import PolicyName, start_window
from model_store.thresholds import HoldoutConfidences


@dataclass(frozen=True, slots=True)
class BatchWindow:
    """Images that are decided together; `policy` knows them by their positions in `images`."""

    images: tuple[int, ...]  # decoded indices in the batch, ascending
    plan: BudgetPlan
    policy: WindowPolicy


class BatchBudget:
    """Gives each window of a batch its share of what is left.

    Mutable; owned by whoever runs the batch. Invariant: what is left pays the first exit of every
    image still to come.

    Args:
        costs: Prices of the exits.
        holdout: Confidences of the same network on its hold-out set.
        num_images: M, the images that could be decoded.
        budget_macs: B, of all of them together; None for no budget.
        policy_name: Who leaves where, if the budget binds.
        window_size: Most images of a window, W.
        every_classifier: See `plan_budget`.

    Attributes:
        plan: Of the whole batch, for the report; each window has its own.
        num_windows: ⌈M / W⌉.

    Raises:
        BudgetInfeasible: B < M·C_1.
        ValueError: There is no image, or no room for one in a window.
    """

    def __init__(
        self,
        costs: ExitCosts,
        holdout: HoldoutConfidences,
        *,
        num_images: int,
        budget_macs: int | None,
        policy_name: PolicyName,
        window_size: int,
        every_classifier: bool = False,
    ) -> None:
        self.plan = plan_budget(costs, num_images, budget_macs, every_classifier=every_classifier)
        windows = interleave(num_images, window_size)
        self.num_windows = len(windows)
        self._costs = costs
        self._holdout = holdout
        self._policy_name = policy_name
        self._pending = [set(images) for images in windows]
        self._opened: list[WindowPolicy] = []

    @property
    def spent_macs(self) -> int:
        """MACs charged so far, by all windows opened."""
        return sum(policy.spent_macs for policy in self._opened)

    def drop(self, image: int) -> None:
        """Take out an image that turned out undecodable; its share passes to those still to come.

        Raises:
            ValueError: Its window was opened already, or there is no such image.
        """
        for images in self._pending:
            if image in images:
                images.remove(image)
                return
        raise ValueError(f"image {image} is in no window still to come")

    def open_window(self) -> BatchWindow | None:
        """Start the next window that has images, or return None after the last.

        The window before must have ended: its policy may not be advanced any more, for what it
        left unspent is given away here.
        """
        num_remaining = sum(len(images) for images in self._pending)
        while self._pending:
            images = tuple(sorted(self._pending.pop(0)))
            if images:
                return self._start(images, num_remaining)
        return None

    def _start(self, images: tuple[int, ...], num_remaining: int) -> BatchWindow:
        budget_macs = self.plan.budget_macs
        if budget_macs is not None:
            left_macs = budget_macs - self.spent_macs
            budget_macs = window_budget(left_macs, len(images), num_remaining)
        plan = plan_budget(
            self._costs, len(images), budget_macs, every_classifier=self.plan.every_classifier
        )
        policy = start_window(self._policy_name, plan, self._costs, self._holdout)
        self._opened.append(policy)
        return BatchWindow(images, plan, policy)


def interleave(num_images: int, window_size: int) -> tuple[range, ...]:
    """Return the images of each window: image i goes to window i mod ⌈M / W⌉.

    Dealt out rather than cut off, so that sorted uploads give windows that are alike.

    Raises:
        ValueError: A window holds no image.
    """
    if window_size <= 0:
        raise ValueError(f"a window holds at least one image, not {window_size}")
    num_windows = -(-num_images // window_size)
    return tuple(range(first, num_images, num_windows) for first in range(num_windows))


def window_budget(left_macs: int, num_images: int, num_remaining: int) -> int:
    """Return the next window's budget, in proportion to its images.

    Args:
        left_macs: B less what was spent.
        num_images: Of this window.
        num_remaining: Of this and all later windows.
    """
    return left_macs * num_images // num_remaining
