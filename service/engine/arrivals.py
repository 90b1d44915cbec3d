"""Images that came since a lane last asked what to run. Pure."""

from service.backends.base import StageKey
from service.engine.member import Member


class Arrivals:
    """Images whose place in line has not been looked for. Mutable; owned by the scheduler."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: list[Member] = []

    def add(self, member: Member) -> None:
        """Let an image wait here."""
        member.place = self
        self._members.append(member)

    def forget(self, member: Member) -> None:
        """Let an image wait no longer."""
        member.place = None

    def depth(self, stage: StageKey) -> int:
        """Return how many images wait for a stage."""
        return sum(one.place is self and one.stage == stage for one in self._members)

    def take(self) -> list[Member]:
        """Let everybody go who still waits here."""
        members, self._members = self._members, []
        found = [member for member in members if member.place is self]
        for member in found:
            member.place = None
        return found
