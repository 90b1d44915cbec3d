"""Which rows of a tensor go on, and whether that takes a copy."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of a batch, in the order in which they are wanted; all of them exist."""

    rows: tuple[int, ...]
    of: int  # rows of the batch

    is_run: bool = field(init=False)  # each row follows the one before it: a view will do

    def __post_init__(self) -> None:
        first = self.rows[0] if self.rows else 0
        is_run = self.rows == tuple(range(first, first + len(self.rows)))
        object.__setattr__(self, "is_run", is_run)

    @property
    def is_whole(self) -> bool:
        """Whether these are all rows in order, so that nothing needs to be picked."""
        return self.is_run and len(self.rows) == self.of

    @property
    def start(self) -> int:
        """The first row; there is one."""
        return self.rows[0]

    @property
    def stop(self) -> int:
        """One behind the last row of a run."""
        return self.rows[-1] + 1
