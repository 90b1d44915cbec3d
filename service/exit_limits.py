"""What a caller allows, in terms of a model's exits."""

from service.commands import ClassifyCommand
from service.engine.exit_policy import affordable_exit
from service.engine.request import ExitLimits
from service.errors import BudgetTooSmall, InvalidParameter
from service.models import Model


def exit_limits(command: ClassifyCommand, model: Model) -> ExitLimits:
    """Return which exits may answer, and what may stop it on the way.

    Raises:
        InvalidParameter: The model has no exit as deep as the first that may answer.
        BudgetTooSmall: The budget does not pay that exit.
    """
    costs = model.served.costs
    last_exit = costs.num_exits - 1
    if command.min_exit > last_exit:
        raise InvalidParameter(
            f"min_exit is {command.min_exit}, the last exit is {last_exit}", parameter="min_exit"
        )
    deadline_s, max_exit = command.deadline_s, command.max_exit
    limits = ExitLimits(
        deadline_at=None if deadline_s is None else command.arrived_at + deadline_s,
        budget_macs=command.budget_macs,
        min_confidence=command.min_confidence,
        min_exit=command.min_exit,
        max_exit=last_exit if max_exit is None else min(max_exit, last_exit),
        every_classifier=command.detail,
    )
    if limits.budget_macs is not None and affordable_exit(limits, costs) is None:
        prices = costs.cumulative_macs if limits.looks_on_the_way else costs.direct_macs
        raise BudgetTooSmall(minimum_macs=prices[limits.min_exit])
    return limits
