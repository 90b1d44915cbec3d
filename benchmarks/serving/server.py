"""What the grid needs of a server under test, ours or a peer's.

A peer is a module in `benchmarks/serving/peers/` with ``def build(exit_index: int | None) ->
ServerUnderTest``. `benchmarks.serving.process` starts and stops processes as every server here is
started: at the same priority, in a session of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class ServerFailed(RuntimeError):
    """A server did not start, or did not become ready in time."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes and what it says besides its body."""

    port: int  # on 127.0.0.1
    path: str  # with its query, "/classify?deadline_ms=30" say
    headers: Mapping[str, str] = field(default_factory=dict)  # besides host, type and length


@dataclass(frozen=True, slots=True)
class Answer:
    """What a 200 says."""

    label_index: int  # CIFAR-10 class
    exit_index: int | None  # None: it does not say, a static model
    is_met: bool | None = None  # its own word on the deadline; None: it has none
    queue_ms: float | None = None
    compute_ms: float | None = None


class ServerUnderTest(Protocol):
    """One server in one configuration; started once, then left alone or under load.

    Bodies are what the grid was told to send: ``application/x-npy`` (uint8, H×W×3) unless another
    form was asked for, with that Content-Type. An answer in time is a 200 that `read` understands;
    whatever else comes back is a miss, and so is silence.
    """

    @property
    def name(self) -> str:
        """As it is printed, ``"mosec"`` say; the same for every `exit_index`."""

    @property
    def exit_index(self) -> int | None:
        """The one exit it serves as a static model; None: as it is meant to be used.

        None is full depth for a server that knows no exits.
        """

    @property
    def settings(self) -> Mapping[str, str]:
        """What it was set to, for the report: workers, batch size, time-outs."""

    @property
    def pid(self) -> int:
        """Of the process that leads its session; every process of the session counts as its own."""

    def start(self) -> None:
        """Start it and return once it answers.

        Raises:
            ServerFailed: It ended or was not ready in time.
        """

    def endpoint(self, deadline_ms: float | None) -> Endpoint:
        """Return where to send an image that is to be answered within `deadline_ms`.

        Args:
            deadline_ms: From the scheduled send on; None: there is none, as in a closed loop at
                full depth.
        """

    def read(self, body: bytes) -> Answer:
        """Return what the body of a 200 says.

        Raises:
            ValueError: It is no answer.
        """

    def stop(self) -> None:
        """End every process of it; harmless where it does not run."""
