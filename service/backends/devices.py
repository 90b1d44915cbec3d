"""Names of devices, as settings give them."""

import re
from dataclasses import dataclass

from service.errors import BackendFailed

AUTO = "auto"  # the first accelerator the runtime finds, else the CPU


@dataclass(frozen=True, slots=True)
class Device:
    """Where a backend keeps features and runs stages."""

    is_cuda: bool
    index: int = 0

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.is_cuda else "cpu"

    @property
    def kind(self) -> str:
        """The name without the index."""
        return "cuda" if self.is_cuda else "cpu"


CPU = Device(is_cuda=False)


def parse_device(name: str) -> Device:
    """Return the device of a name: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Raises:
        BackendFailed: It is none of these.
    """
    if name == "cpu":
        return CPU
    if match := re.fullmatch(r"cuda(?::([0-9]{1,3}))?", name):
        return Device(is_cuda=True, index=int(match[1] or 0))
    raise BackendFailed(f"no device {name!r}: give 'cpu', 'cuda', 'cuda:<index>' or {AUTO!r}")
