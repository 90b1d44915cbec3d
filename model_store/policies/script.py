"""A policy written down in the order in which it happens, and run one step at a time.

Each policy is a generator: it yields the steps that run next and is sent the images that arrived.
So the loop over the exits stands in the policy as it stands in its description, although between
two steps the engine goes away and computes.
"""

from collections.abc import Collection, Generator, Mapping
from typing import TypeAlias

from model_store.policies.base import ExitStanding, Step
from model_store.policies.standings import Standings

Script: TypeAlias = Generator[tuple[Step, ...], tuple[int, ...], None]


class ScriptedWindow:
    """A `WindowPolicy` that follows a script. Mutable; owned by whoever runs the window.

    Args:
        standings: Books of the window, which the script reads and writes too.
        script: Not started yet; ends when the window is over.
    """

    def __init__(self, standings: Standings, script: Script) -> None:
        self._standings = standings
        self._script = script
        self._has_begun = False

    def advance(
        self, confidences: Mapping[int, float], failed: Collection[int] = ()
    ) -> tuple[Step, ...]:
        """Take in how the last steps went; see `WindowPolicy`."""
        arrived = self._standings.settle(confidences, failed)
        try:
            if self._has_begun:
                return self._script.send(arrived)
            self._has_begun = True
            return next(self._script)
        except StopIteration:
            return ()

    @property
    def spent_macs(self) -> int:
        """MACs charged so far."""
        return self._standings.spent_macs

    def exits(self) -> tuple[ExitStanding, ...]:
        """Where each image of the window stands, by position."""
        return self._standings.exits()
