"""The log: one JSON object a line, on standard error, with the id of the request it is about."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

_STANDARD_FIELDS: Final = frozenset(
    [*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"]
)


class JsonFormatter(logging.Formatter):
    """Writes records as JSON objects; what a caller passes as `extra` becomes members.

    Args:
        request_id: Returns the id of the request being handled, None outside of one.
    """

    def __init__(self, request_id: Callable[[], str | None]) -> None:
        super().__init__()
        self._request_id = request_id

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        written_at = datetime.fromtimestamp(record.created, tz=UTC)
        members: dict[str, Any] = {
            "time": written_at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().strip(),
        }
        request_id = self._request_id()
        if request_id is not None:
            members["request_id"] = request_id
        members.update(
            (name, value) for name, value in vars(record).items() if name not in _STANDARD_FIELDS
        )
        if record.exc_info:
            members["traceback"] = self.formatException(record.exc_info)
        return json.dumps(members, default=str, separators=(",", ":"))


def configure_logging(
    level: str, *, request_id: Callable[[], str | None], stream: TextIO | None = None
) -> None:
    """Send all logging of the process through one JSON handler.

    Called once, by the command line, before anything else logs; uvicorn's loggers are left
    without handlers of their own, so that their lines come out here too.

    Args:
        level: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.
        request_id: See `JsonFormatter`.
        stream: Standard error where None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(request_id))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.captureWarnings(capture=True)
