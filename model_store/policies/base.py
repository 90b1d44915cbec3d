"""What every budget policy is to whoever runs the stages: the live server's cohorts and replay.

A policy decides for one window of images. It is synchronous and pure but for its own books: no
clock, no features, no logits. It charges a stage when it asks for it and never refunds.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class LeaveReason(Enum):
    """Why an image has its answer from the exit it stands at."""

    CONFIDENT = "confident"  # its confidence reached the exit's threshold
    BUDGET = "budget"  # it wanted on, others were worth more
    RANK = "rank"  # enough others were less confident
    LAST_EXIT = "last_exit"
    FAILED = "failed"  # the stage after this exit failed


@dataclass(frozen=True, slots=True)
class Step:
    """Images of one window that run one stage next."""

    stage_index: int
    images: tuple[int, ...]  # positions in the window, ascending
    classify: bool  # False: the trunk alone, its classifier cannot matter


@dataclass(frozen=True, slots=True)
class ExitStanding:
    """Where one image of a window stands."""

    exit_index: int | None  # deepest exit with an answer; None before the first
    reason: LeaveReason | None  # None while it goes on
    spent_macs: int  # every stage and classifier begun for it, failed ones too


class WindowPolicy(Protocol):
    """Decides, stage by stage, which images of a window go on.

    Whatever the confidences are, and whenever the caller stops asking, `spent_macs` stays within
    the window's budget.
    """

    def advance(
        self, confidences: Mapping[int, float], failed: Collection[int] = ()
    ) -> tuple[Step, ...]:
        """Take in how the last steps went, charge what runs next and return it.

        The first call brings an empty mapping and gets stage 0 for all images. Images of a step
        that does not classify bring no confidence.

        Args:
            confidences: Confidence at its new exit of every image of the last steps that did not
                fail, by position in the window.
            failed: Images of the last steps whose stage failed. They keep their charge and their
                last exit, and go nowhere.

        Returns:
            At most one step per stage; empty once the window is over.

        Raises:
            ValueError: The images reported are not those of the last steps.
        """
        ...

    @property
    def spent_macs(self) -> int:
        """MACs charged so far."""
        ...

    def exits(self) -> tuple[ExitStanding, ...]:
        """Return where each image of the window stands, by position."""
        ...
