"""The server as it is, which on SIGUSR1 writes down how many tasks, threads and places it holds.

`python -m benchmarks.soak.watched_server FILE`; settings come from the environment.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import threading
from pathlib import Path

from benchmarks.soak.watch import count_places
from service.cli import main


def run(file: Path) -> int:
    """Serve until told to leave."""

    def count(_number: int, _frame: object) -> None:
        # Called between two steps of the event loop's thread, so the loop is there to be asked.
        census = {
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            # No metric tells of a place that was held before its image came, and then forgotten.
            "places": count_places(gc.get_objects()),
        }
        part = file.with_suffix(".part")
        part.write_text(json.dumps(census), encoding="ascii")
        os.replace(part, file)  # noqa: PTH105 - one call: whoever polls finds all or nothing

    signal.signal(signal.SIGUSR1, count)
    return main([])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
