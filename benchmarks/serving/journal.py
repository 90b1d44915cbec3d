"""What is done already, in a work folder: whoever starts again goes on where it stopped."""

from pathlib import Path
from typing import Generic, TypeVar

from benchmarks.serving.cell import Record

RecordT = TypeVar("RecordT", bound=Record)


class JournalMismatch(RuntimeError):
    """A work folder holds another run."""


class Journal(Generic[RecordT]):
    """Records of one kind, one JSON object a line, appended as they come.

    Args:
        path: Of the file; made with the first record.
        kind: Of the records.
    """

    def __init__(self, path: Path, kind: type[RecordT]) -> None:
        self._path = path
        self._kind = kind

    def read(self) -> list[RecordT]:
        """Return all records; a last line cut off by a crash is none."""
        if not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
        return [self._kind.model_validate_json(line) for line in lines]

    def append(self, record: RecordT) -> None:
        """Add one record, behind the last whole line."""
        if self._path.is_file():
            held = self._path.read_bytes()
            whole = held[: held.rfind(b"\n") + 1]
            if len(whole) < len(held):
                self._path.write_bytes(whole)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(record.model_dump_json() + "\n")


def check_same_run(path: Path, described: Record) -> None:
    """Note what a work folder is for, or find that it is for the same.

    Raises:
        JournalMismatch: It holds another run.
    """
    wanted = described.model_dump_json(indent=2)
    if not path.is_file():
        path.write_text(wanted, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != wanted:
        raise JournalMismatch(f"{path} describes another run: take another folder or remove it")
