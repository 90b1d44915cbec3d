"""No decision at all: every image goes to the last exit, as where the budget pays for that."""

from collections.abc import Sequence

from model_store.costs import ExitCosts
from model_store.policies.base import WindowPolicy
from model_store.policies.script import Script, ScriptedWindow
from model_store.policies.standings import Standings


def start_full_depth(costs: ExitCosts, num_images: int, *, every_classifier: bool) -> WindowPolicy:
    """Start a window whose images all run to the last exit.

    Args:
        costs: Prices of the exits.
        num_images: Images of the window.
        every_classifier: Every exit answers on the way (C_K each); else only the last (D_K each).
    """
    standings = Standings(costs, num_images)
    return ScriptedWindow(standings, _script(standings, every_classifier=every_classifier))


def _script(standings: Standings, *, every_classifier: bool) -> Script:
    images: Sequence[int] = range(standings.num_images)
    last = standings.costs.num_exits - 1
    for stage_index in range(standings.costs.num_exits):
        classify = every_classifier or stage_index == last
        images = yield (standings.begin(stage_index, images, classify=classify),)
        if not images:
            return
