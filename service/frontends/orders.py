"""What the supervisor tells a process that it starts."""

import ctypes
import os
import signal
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

_PR_SET_PDEATHSIG: Final = 1
_RUNTIME_FILE: Final = "runtime"
_ENDED: Final = frozenset("ZX")  # states of /proc/<pid>/stat


class Role(StrEnum):
    """What a process of the group does."""

    ENGINE = "engine"
    FRONT_END = "front-end"


class Orders(BaseModel):
    """How a process of the group is to run; all else is in its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    index: int  # among those of its role
    num_front_ends: int
    folder: Path  # for the engine's socket and what everybody counts
    supervisor: int  # process id
    listener: int | None  # descriptor of the socket that front ends accept from
    ready: int | None  # descriptor to say on that the engine can be reached
    build: str  # ``module:function`` that makes the backend

    @property
    def address(self) -> str:
        """Path of the engine's socket."""
        return str(self.folder / "engine.sock")

    @property
    def name(self) -> str:
        """Of the process, for files and the log."""
        return f"{self.role.value}-{self.index}"


class Runtime(BaseModel):
    """What the engine process runs its stages on, as front ends describe models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    device: str

    def write(self, orders: Orders) -> None:
        """Leave it for the front ends, which are started later."""
        (orders.folder / _RUNTIME_FILE).write_text(self.model_dump_json())

    @classmethod
    def read(cls, orders: Orders) -> Self:
        """Read what the engine process left."""
        return cls.model_validate_json((orders.folder / _RUNTIME_FILE).read_text())


def end_with_supervisor(supervisor: int) -> bool:
    """Have the kernel tell this process to leave when its supervisor ends, however that does.

    It may say so several times, as the supervisor's threads end one after another.

    Returns:
        False where the supervisor has ended already.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no signal for a supervisor's end")
    return is_supervised(supervisor)


def is_supervised(supervisor: int) -> bool:
    """Whether this process's supervisor is there.

    A parent that was killed keeps its id until the last of its threads has ended; the first, which
    starts processes, is a zombie by then.
    """
    if os.getppid() != supervisor:
        return False
    try:
        stat = Path(f"/proc/{supervisor}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The name in brackets may hold anything; behind it comes the state.
    return stat.rpartition(")")[2].split()[0] not in _ENDED
