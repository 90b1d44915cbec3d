"""Whether admission refuses so much that it is to be asked before an image is decoded."""

from typing import Final

_NEWEST_WEIGHT: Final = 0.25  # of a verdict in the running share
# Asking twice costs an image that is admitted half as long as being decoded in vain costs one that
# is not. After a quiet time one refusal is above this, and one admission behind it below again.
_MANY: Final = 0.2


class RecentRefusals:
    """The share of refusals among admission's latest verdicts; owned by the event loop."""

    __slots__ = ("_share",)

    def __init__(self) -> None:
        self._share = 0.0

    @property
    def are_many(self) -> bool:
        """Whether the next image is likely enough to be refused."""
        return self._share > _MANY

    def note_admitted(self) -> None:
        """Learn that an image was let in."""
        self._share -= _NEWEST_WEIGHT * self._share

    def note_refused(self) -> None:
        """Learn that one was not."""
        self._share += _NEWEST_WEIGHT * (1.0 - self._share)
