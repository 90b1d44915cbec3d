"""What a lane process is told when it is started."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

IDLE: Final = 20  # a niceness beyond all: run only while nothing else wants the core


class ServedBundle(BaseModel):
    """A bundle to open, which the parent has verified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    path: Path


class Orders(BaseModel):
    """How a lane process is to run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundles: tuple[ServedBundle, ...]  # numbered by their order
    num_threads: int  # that one stage is spread over
    niceness: int  # by how much it stands back; see `IDLE`
    connection: int  # descriptor of the socket on which jobs come
    arena: int  # descriptor of the memory for features
    lifeline: int  # descriptor that says, by its end, that the parent is gone
