"""Errors as numbers in shared memory: what was raised in one process is told by another."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.errors import (
    BackendFailed,
    BudgetTooSmall,
    DeadlineInfeasible,
    DeadlineMissed,
    EngineStopped,
    NotReady,
    Overloaded,
    ReplicaLost,
    ServiceError,
    ShuttingDown,
)


@dataclass(frozen=True, slots=True)
class WrittenError:
    """One error as it is written down."""

    code: int  # position in the table, from 1
    number: float  # that its caller needs; 0 where there is none
    message: str  # of those that are told by a message alone


_BUILDERS: Final[tuple[tuple[type[ServiceError], Callable[[float, str], ServiceError]], ...]] = (
    (Overloaded, lambda number, _: Overloaded(retry_after_s=number)),
    (DeadlineInfeasible, lambda number, _: DeadlineInfeasible(minimum_s=number)),
    (DeadlineMissed, lambda number, _: DeadlineMissed(elapsed_s=number)),
    (BackendFailed, lambda _, message: BackendFailed(message)),
    (EngineStopped, lambda _, message: EngineStopped(message)),
    (NotReady, lambda number, _: NotReady(retry_after_s=number)),
    (ShuttingDown, lambda number, _: ShuttingDown(retry_after_s=number)),
    (ReplicaLost, lambda number, _: ReplicaLost(retry_after_s=number)),
    (BudgetTooSmall, lambda number, _: BudgetTooSmall(minimum_macs=round(number))),
)
_CODES: Final = {error: code for code, (error, _) in enumerate(_BUILDERS, start=1)}
_NUMBERS: Final = ("retry_after_s", "minimum_s", "elapsed_s", "minimum_macs")


def write_error(error: ServiceError) -> WrittenError:
    """Return an error as it is written down; one that nobody foresaw keeps its message alone."""
    numbers = [getattr(error, name) for name in _NUMBERS if hasattr(error, name)]
    code = _CODES.get(type(error), _CODES[BackendFailed])
    return WrittenError(code, float(numbers[0]) if numbers else 0.0, str(error))


def read_error(written: WrittenError) -> ServiceError:
    """Return the error that was written down."""
    _, build = _BUILDERS[written.code - 1]
    return build(0.0 if math.isnan(written.number) else written.number, written.message)
