"""What each part of a network takes at its very fastest, as a file."""

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt

from benchmarks.serving.stopping_rules import ImageTimes


class Record(BaseModel):
    """Written to a file and read back."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(StrEnum):
    """Of a stage."""

    TRUNK = "trunk"
    CLASSIFIER = "classifier"


class Layout(Record):
    """Lanes that run graphs side by side, each on so many threads of the runtime."""

    lanes: PositiveInt
    threads: PositiveInt


class PartTime(Record):
    """One part of one stage in one way of running it."""

    stage_index: NonNegativeInt
    part: Part
    batch_size: PositiveInt
    layout: Layout
    core_s: NonNegativeFloat  # per image: elapsed · cores ÷ images of all lanes


class StageTimes(Record):
    """All that was measured of one network on one machine."""

    model: str  # name@version
    processor: str
    runtime: str  # with its version
    cores: PositiveInt
    measured: tuple[PartTime, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a file holds.

        Raises:
            OSError: It cannot be read.
            ValueError: It holds something else.
        """
        return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Store it."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @property
    def num_stages(self) -> int:
        """K."""
        return 1 + max(measured.stage_index for measured in self.measured)

    def fastest(self, stage_index: int, part: Part) -> PartTime:
        """Return the way of running a part in which an image takes least of the cores."""
        return min(
            (m for m in self.measured if (m.stage_index, m.part) == (stage_index, part)),
            key=lambda m: m.core_s,
        )

    def image_times(self, *, arrival_s: float) -> ImageTimes:
        """Return the least time of each part, in seconds of one of as many lanes as cores.

        Args:
            arrival_s: CPU-seconds that the front end takes for each image.
        """
        stages = range(self.num_stages)
        return ImageTimes(
            trunk_s=tuple(self.fastest(k, Part.TRUNK).core_s for k in stages),
            classifier_s=tuple(self.fastest(k, Part.CLASSIFIER).core_s for k in stages),
            arrival_s=arrival_s,
        )
