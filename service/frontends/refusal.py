"""Refusing to be one of several processes that know nothing of each other.

Each would have an engine of its own on the same cores, and an admission that counts only its own
requests: deadlines would be promised several times over.
"""

import multiprocessing
from collections.abc import Mapping
from typing import Final

from service.models import CannotServe

_CONCURRENCY: Final = "WEB_CONCURRENCY"
_ADVICE: Final = "set ANYTIME_FRONTENDS for several HTTP processes that share one engine"


class ForeignWorkers(CannotServe):
    """A process manager runs several copies of a server that is to be one."""


def refuse_foreign_workers(environment: Mapping[str, str]) -> None:
    """Refuse to start under ``uvicorn --workers``, gunicorn, or with WEB_CONCURRENCY above 1.

    Args:
        environment: Of the process.

    Raises:
        ForeignWorkers: This would be one of several.
    """
    if multiprocessing.parent_process() is not None:
        # uvicorn runs its workers so, even a single one.
        raise ForeignWorkers(f"`uvicorn --workers` starts servers beside each other: {_ADVICE}")
    if environment.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
        raise ForeignWorkers(f"gunicorn starts servers beside each other: {_ADVICE}")
    concurrency = environment.get(_CONCURRENCY, "1")
    if concurrency.strip() not in {"", "0", "1"}:
        raise ForeignWorkers(f"{_CONCURRENCY} is {concurrency}: {_ADVICE}")
