"""``python -m service.backends.processes ORDERS``: one lane process."""

import os
import signal
import socket
import sys
import threading
from typing import Final

from model_store.errors import BundleError
from model_store.reader import open_bundle
from service.backends.base import ModelKey
from service.backends.processes.jobs import DONE, failure
from service.backends.processes.orders import IDLE, Orders
from service.backends.processes.worker import Worker
from service.errors import BackendFailed
from service.shared_block import SharedBlock

EXIT_DESERTED: Final = 0
EXIT_FAILED: Final = 1


def main(arguments: list[str]) -> int:
    """Say that all is loaded, then run jobs until the parent is gone.

    Args:
        arguments: The orders, as JSON.
    """
    orders = Orders.model_validate_json(arguments[0])
    # A terminal's interrupt is for the parent, which lets its processes go in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _leave_with_parent(orders.lifeline)
    _stand_back(orders.niceness)
    with socket.socket(fileno=orders.connection) as connection:
        try:
            worker = Worker(
                {
                    ModelKey(served.name, served.version): open_bundle(served.path)
                    for served in orders.bundles
                },
                SharedBlock.attach(orders.arena),
                num_threads=orders.num_threads,
            )
        except (BackendFailed, BundleError, OSError) as error:
            connection.send(failure(str(error)))
            return EXIT_FAILED
        connection.send(DONE)
        worker.serve(connection)
    return EXIT_DESERTED


def _stand_back(niceness: int) -> None:
    """Let others have the core first."""
    if niceness < IDLE:
        os.nice(niceness)
        return
    # As nice as can be, a lane may still finish its slice of milliseconds before the event loop
    # runs that it keeps waiting; idle work is interrupted at once.
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # a sandbox forbids it
        os.nice(IDLE)


def _leave_with_parent(lifeline: int) -> None:
    """End this process when its parent does, in the middle of a stage that hangs, too."""

    def wait() -> None:
        os.read(lifeline, 1)  # nobody writes: it returns once the other end is closed
        os._exit(EXIT_DESERTED)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
