"""One run of one server under one load: the unit that is measured, repeated and resumed."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from benchmarks.serving.trace import ArrivalProcess, Load


class Record(BaseModel):
    """Written to the work folder, one a line, and read back."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(Record):
    """What is run; two cells with one `load` have one trace."""

    server: str
    exit_index: int | None  # None: as the server is meant to be used
    process: ArrivalProcess
    deadline_ms: float
    rho: float  # offered load ÷ the best full-depth throughput
    rate_hz: float
    seconds: float  # of the trace
    run_seconds: float  # of it that are run, from its beginning
    repeat: int

    @property
    def load(self) -> Load:
        """The arrivals."""
        return Load(self.process, self.rate_hz, self.seconds, self.repeat)

    @property
    def key(self) -> str:
        """Name of the cell, in file names too."""
        exit_name = "all" if self.exit_index is None else f"exit{self.exit_index}"
        return (
            f"{self.server}-{exit_name}-{self.process.value}-{self.deadline_ms:g}ms"
            f"-rho{self.rho:g}-{self.repeat}"
        )

    @property
    def trace_key(self) -> str:
        """Name of its trace."""
        return f"{self.process.value}-rho{self.rho:g}-{self.repeat}"

    def of(self, server: str, exit_index: int | None) -> Self:
        """Return the same load on another server."""
        return self.model_copy(update={"server": server, "exit_index": exit_index})

    def shortened(self, run_seconds: float) -> Self:
        """Return the same load, of which less is run."""
        return self.model_copy(update={"run_seconds": min(run_seconds, self.run_seconds)})


class CellRecord(Record):
    """How one attempt at a cell went; its outcomes lie beside, under `file`."""

    cell: Cell
    attempt: int  # from 0
    file: str
    foreign_share: float  # of all processors' time, stolen or other processes'
    send_lag_p99_ms: float
    generator_us: float  # CPU a request
    scheduling: str  # of the generator
    resident_bytes: int  # of the server, right after

    def is_quiet(self, max_foreign_share: float, max_send_lag_ms: float) -> bool:
        """Whether the run counts: neither neighbours nor the generator had a part in it."""
        return self.foreign_share <= max_foreign_share and self.send_lag_p99_ms <= max_send_lag_ms


class CapacityRecord(Record):
    """Throughput of a closed loop."""

    server: str
    exit_index: int | None
    num_clients: int
    images_per_s: float
    foreign_share: float
    settings: dict[str, str]  # of the server
