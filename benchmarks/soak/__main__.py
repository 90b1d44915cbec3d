"""Puts mixed load on a server and looks at what is left afterwards.

`python -m benchmarks.soak --minutes 10`. Clients send images in several forms,
with and without deadlines and budgets, batches, broken images and wrong queries, and one in seven
hangs up. Exit status 1 unless every request was settled as it should be, memory stayed flat after
warming up and no place, task, thread or descriptor was left.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from benchmarks.server_process import ServerProcess, serving
from benchmarks.soak.clients import Tally, run_clients
from benchmarks.soak.watch import (
    Holdings,
    count_holdings,
    growth_bytes,
    is_flat,
    read_metrics,
    resident_bytes,
    unsettled,
)

_SAMPLES: Final = 80  # of memory, over the whole soak
_MEBIBYTE: Final = 2**20
_REST_S: Final = 20.0  # for the last work of those that left to be noticed as useless
_ATTEMPT_S: Final = 0.5
_WARM_UP_S: Final = 10.0
_POOL_SLACK: Final = 4  # threads that a pool may still take on; a leak leaves one a request
_UNEXPECTED_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Soaked:
    """What was found."""

    tally: Tally
    resident: list[int]  # bytes, evenly over the soak
    before: Holdings  # warm and at rest
    after: Holdings  # at rest again
    num_unsettled: float  # images that were admitted and vanished


def main() -> int:
    """Run the soak; print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=32, help="at once")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        census = Path(folder) / "census.json"
        with serving(module=("benchmarks.soak.watched_server", str(census))) as server:
            seconds = 60 * options.minutes
            found = _soak(server, census, options.clients, seconds=seconds, seed=options.seed)
    checks = _checks(found)
    _say(found)
    for claim, is_kept in checks.items():
        sys.stdout.write(f"{'kept' if is_kept else 'MISSED'}: {claim}\n")
    return 0 if all(checks.values()) else 1


def _soak(
    server: ServerProcess, census: Path, clients: int, *, seconds: float, seed: int
) -> Soaked:
    # Pools fill up and code paths are taken for the first time: that is no leak.
    asyncio.run(run_clients(server.port, number=clients, seconds=_WARM_UP_S, seed=-1))
    _rest(server)
    before = count_holdings(server.pid, census)
    resident: list[int] = []
    is_over = threading.Event()
    sampler = threading.Thread(
        target=_sample, args=(server.pid, resident, is_over, seconds / _SAMPLES)
    )
    sampler.start()
    try:
        tally = asyncio.run(run_clients(server.port, number=clients, seconds=seconds, seed=seed))
    finally:
        is_over.set()
        sampler.join()
    _rest(server)
    after = count_holdings(server.pid, census)
    return Soaked(tally, resident, before, after, unsettled(_metrics(server)))


def _sample(pid: int, resident: list[int], is_over: threading.Event, every_s: float) -> None:
    while not is_over.wait(every_s):
        resident.append(resident_bytes(pid))


def _rest(server: ServerProcess) -> None:
    """Wait until the server has nothing left to do, or for as long as that may take."""
    given_up_at = time.monotonic() + _REST_S
    while time.monotonic() < given_up_at:
        time.sleep(_ATTEMPT_S)
        metrics = _metrics(server)
        # The one in flight is this very question.
        if metrics["anytime_requests_in_flight"] <= 1 and not unsettled(metrics):
            return


def _metrics(server: ServerProcess) -> dict[str, float]:
    return dict(read_metrics(httpx.get(f"{server.url}/metrics").text))


def _checks(found: Soaked) -> dict[str, bool]:
    return {
        "every request was settled, as it should be": not found.tally.unexpected,
        "every image admitted was answered or given up": found.num_unsettled == 0,
        "no place in admission was left": not found.after.places,
        "memory is flat after warming up": is_flat(found.resident),
        "no task was left": found.after.tasks <= found.before.tasks,
        "no thread was left": found.after.threads <= found.before.threads + _POOL_SLACK,
        "no descriptor was left": found.after.descriptors <= found.before.descriptors,
    }


def _say(found: Soaked) -> None:
    tally = found.tally
    sys.stdout.write(f"{tally.num_answered} answered, {tally.num_hung_up} hung up\n")
    for (name, status), count in sorted(tally.answered.items()):
        sys.stdout.write(f"  {name}: {count} x {status}\n")
    for line in tally.unexpected[:_UNEXPECTED_SHOWN]:
        sys.stdout.write(f"UNEXPECTED {line}\n")
    first, last = found.resident[0] / _MEBIBYTE, found.resident[-1] / _MEBIBYTE
    growth = growth_bytes(found.resident) / _MEBIBYTE
    sys.stdout.write(
        f"resident {first:.0f} MiB at first, {last:.0f} at last, {growth:+.1f} from the second "
        f"quarter to the last\nbefore {found.before}\nafter {found.after}\n"
        f"{found.num_unsettled:.0f} images neither answered nor given up\n"
    )


if __name__ == "__main__":
    sys.exit(main())
