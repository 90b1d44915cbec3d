"""What a peer is set to, as the search found it: `settings/<peer>.json`, in the repository."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Status = Literal["provisional", "searched"]  # provisional: not from a search on a quiet machine

SETTINGS: Final = Path(__file__).parent / "settings"


class PeerSettings(BaseModel):
    """One point of the search; times are shares of the deadline, so that any deadline has some."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: PositiveInt  # processes that run the graph
    threads: PositiveInt  # of ONNX Runtime in each
    may_spin: bool  # whether those threads wait for work busily
    max_batch_size: PositiveInt
    batch_wait_ms: float = Field(ge=0)  # how long a batch that is not full waits for more
    expiry: float = Field(gt=0, le=1)  # the peer's `timeout` ÷ the deadline
    queue_deadlines: PositiveFloat  # limit of the queue ÷ images served in one deadline
    front_ends: PositiveInt  # HTTP processes

    def changed(self, change: Mapping[str, float]) -> Self:
        """Return these settings with other values for some, checked like any."""
        return type(self).model_validate({**self.model_dump(), **change})

    def __str__(self) -> str:
        """As tables print it."""
        return ", ".join(f"{name} {value}" for name, value in self.model_dump().items())


class Trial(BaseModel):
    """One line of the search's table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: PeerSettings
    accuracies: tuple[float, ...]  # right and in time over all arrivals, at each of the rates
    foreign_share: float  # of the processors' time, that of others meanwhile

    @property
    def score(self) -> float:
        """What the search compares."""
        return fmean(self.accuracies)


class SearchResult(BaseModel):
    """What was chosen, and from what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status
    chosen: PeerSettings
    # Time an image takes of the whole machine in a closed loop, at exit 0 and at the last.
    service_ms: tuple[PositiveFloat, PositiveFloat]
    versions: dict[str, str] = {}
    deadline_ms: PositiveFloat = 30.0
    rates_hz: tuple[float, ...] = ()  # of the trials, full depth
    trials: tuple[Trial, ...] = ()

    def table(self) -> str:
        """Return the trials as Markdown, best first."""
        names = list(PeerSettings.model_fields)
        rates = [f"{rate:.0f}/s" for rate in self.rates_hz]
        heads = [*names, *(f"accuracy at {rate}" for rate in rates), "others' CPU"]
        lines = [_line(heads), _line(["--:"] * len(heads))]
        for trial in self.trials:
            values = [str(value) for value in trial.settings.model_dump().values()]
            shares = [f"{share:.1%}" for share in (*trial.accuracies, trial.foreign_share)]
            lines.append(_line([*values, *shares]))
        return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def load_settings(peer: str, *, folder: Path = SETTINGS) -> SearchResult:
    """Return a peer's settings.

    Raises:
        FileNotFoundError: There are none yet.
        pydantic.ValidationError: The file is not what it should be.
    """
    return SearchResult.model_validate_json((folder / f"{peer}.json").read_bytes())


def store_settings(peer: str, result: SearchResult, *, folder: Path = SETTINGS) -> None:
    """Keep what a search found, whole or not at all."""
    folder.mkdir(exist_ok=True)
    part = folder / f"{peer}.part"
    part.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.replace(folder / f"{peer}.json")
