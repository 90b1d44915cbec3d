"""Policy `topk`: whole counts per exit, fixed before the first stage, filled by rank."""

from collections.abc import Sequence
from itertools import accumulate

from model_store.costs import ExitCosts
from model_store.ledger import Ledger
from model_store.policies.base import LeaveReason, WindowPolicy
from model_store.policies.remainder import spend_remainder
from model_store.policies.script import Script, ScriptedWindow
from model_store.policies.standings import Standings


def start_topk(costs: ExitCosts, budget_macs: int, counts: Sequence[int]) -> WindowPolicy:
    """Start a window whose images leave by rank.

    Args:
        costs: Prices of the exits.
        budget_macs: Of the window.
        counts: Images to leave at each exit; their sum is the window.

    Raises:
        BudgetInfeasible: The budget does not pay every first exit.
    """
    standings = Standings(costs, sum(counts))
    ledger = Ledger(budget_macs, costs.cumulative_macs[0], standings.num_images)
    return ScriptedWindow(standings, _script(standings, ledger, counts))


def _script(standings: Standings, ledger: Ledger, counts: Sequence[int]) -> Script:
    ledger.charge_first_exits(standings.num_images)
    arrived = yield (standings.begin(0, range(standings.num_images)),)
    steps = zip(accumulate(counts), standings.costs.stage_macs[1:], strict=False)
    for exit_index, (num_left_by, step_macs) in enumerate(steps):
        # Counts that cost more than the budget are a caller's mistake, which the ledger survives.
        num_going = min(standings.num_images - num_left_by, ledger.free_macs // step_macs)
        ordered = standings.in_leaving_order(arrived)
        num_leaving = max(0, len(ordered) - num_going)
        standings.leave(ordered[:num_leaving], LeaveReason.RANK)
        going = ordered[num_leaving:]
        if not going or not ledger.charge(len(going) * step_macs):
            break
        arrived = yield (standings.begin(exit_index + 1, going),)
    # The counts leave nothing to spend, but images whose stage failed do.
    yield from spend_remainder(standings, ledger)
