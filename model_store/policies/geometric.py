"""Policy `geometric`: thresholds from the hold-out set, and eq. (3) solved anew at every exit.

Thresholds say who is sure enough to leave. A quota, from what is left, says how many of the others
may go on, so that a batch harder than the hold-out set is spread over the exits as a planned one
would be, instead of advancing in step until nothing is left.
"""

from collections.abc import Sequence

from model_store.costs import ExitCosts
from model_store.counts import round_up
from model_store.ledger import Ledger
from model_store.policies.base import LeaveReason, WindowPolicy
from model_store.policies.remainder import spend_remainder
from model_store.policies.script import Script, ScriptedWindow
from model_store.policies.standings import Standings
from model_store.ratio import exit_shares, solve_log_ratio


def start_geometric(
    costs: ExitCosts, num_images: int, budget_macs: int, thresholds: Sequence[float | None]
) -> WindowPolicy:
    """Start a window whose images leave by threshold.

    Args:
        costs: Prices of the exits.
        num_images: Images of the window.
        budget_macs: Of the window.
        thresholds: One per exit; None lets nobody leave.

    Raises:
        BudgetInfeasible: The budget does not pay every first exit.
    """
    standings = Standings(costs, num_images)
    ledger = Ledger(budget_macs, costs.cumulative_macs[0], num_images)
    return ScriptedWindow(standings, _script(standings, ledger, thresholds))


def continuation_quota(costs: ExitCosts, exit_index: int, num_standing: int, left_macs: int) -> int:
    """Return how many of the images at an exit may go on: eq. (3) for what is left.

    Args:
        costs: Prices of the exits.
        exit_index: Where they stand, not the last exit.
        num_standing: How many do.
        left_macs: What they may spend together.
    """
    reached = costs.cumulative_macs[exit_index]
    ahead = [macs - reached for macs in costs.cumulative_macs[exit_index:]]
    if left_macs >= num_standing * ahead[-1]:
        return num_standing
    affordable = left_macs // ahead[1]
    is_last_step = ahead[1] == ahead[-1]
    if affordable == 0 or is_last_step:
        return affordable
    staying, *_ = exit_shares(solve_log_ratio(ahead, num_standing, left_macs), len(ahead))
    return min(affordable, round_up(num_standing * (1.0 - staying)))


def _script(standings: Standings, ledger: Ledger, thresholds: Sequence[float | None]) -> Script:
    ledger.charge_first_exits(standings.num_images)
    arrived = yield (standings.begin(0, range(standings.num_images)),)
    for exit_index, step_macs in enumerate(standings.costs.stage_macs[1:]):
        wanting = _part_confident(standings, arrived, thresholds[exit_index])
        quota = continuation_quota(standings.costs, exit_index, len(arrived), ledger.free_macs)
        ordered = standings.in_leaving_order(wanting)
        num_denied = max(0, len(ordered) - quota)
        standings.leave(ordered[:num_denied], LeaveReason.BUDGET)
        going = ordered[num_denied:]
        if not going or not ledger.charge(len(going) * step_macs):
            break
        arrived = yield (standings.begin(exit_index + 1, going),)
    yield from spend_remainder(standings, ledger)


def _part_confident(
    standings: Standings, arrived: Sequence[int], threshold: float | None
) -> list[int]:
    """Let those go that meet the threshold, and return those that want on."""
    if threshold is None:
        return list(arrived)
    wanting = [image for image in arrived if standings.confidence(image) < threshold]
    standings.leave(set(arrived).difference(wanting), LeaveReason.CONFIDENT)
    return wanting
