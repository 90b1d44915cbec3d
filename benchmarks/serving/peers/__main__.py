"""Installs other servers, searches their settings, or starts one to be tried by hand.

`python -m benchmarks.serving.peers install [PEER …]`, `… search PEER --data DATA [--minutes 8]`,
`… serve PEER [--exit K]`, `… table PEER`.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.serving.images import LabelledImages
from benchmarks.serving.peers.bench import Bench
from benchmarks.serving.peers.environments import WORK, install
from benchmarks.serving.peers.peer_server import PeerServer
from benchmarks.serving.peers.search import AXES, search
from benchmarks.serving.peers.settings import load_settings, store_settings
from benchmarks.serving.server import ServerFailed

PEERS = tuple(AXES)


def main() -> int:
    """Do what the command line says."""
    options = _parse()
    try:
        options.run(options)
    except ServerFailed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.peers", description=__doc__)
    commands = parser.add_subparsers(required=True)
    installing = commands.add_parser("install", help="make the peers' environments")
    installing.add_argument("peers", nargs="*", metavar="PEER", help=f"default: {', '.join(PEERS)}")
    installing.set_defaults(run=_install)
    for name, run in (("search", _search), ("serve", _serve), ("table", _table)):
        command = commands.add_parser(name)
        command.add_argument("peer", choices=PEERS)
        command.set_defaults(run=run)
        if name == "search":
            command.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10")
            command.add_argument("--minutes", type=float, default=8.0)
        if name == "serve":
            command.add_argument("--exit", type=int, dest="exit_index")
    return parser.parse_args()


def _install(options: argparse.Namespace) -> None:
    for peer in options.peers or PEERS:
        install(peer)


def _search(options: argparse.Namespace) -> None:
    until = time.monotonic() + 60 * options.minutes
    WORK.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.peer, LabelledImages.prepared(options.data, WORK), WORK)
    found = search(
        bench,
        load_settings(options.peer),
        is_time_left=lambda: time.monotonic() < until,
        report=_say,
    )
    store_settings(options.peer, found)
    _say(found.table())


def _serve(options: argparse.Namespace) -> None:
    searched = load_settings(options.peer)
    server = PeerServer(options.peer, options.exit_index, searched=searched)
    server.start()
    try:
        endpoint = server.endpoint(None)
        _say(f"POST http://127.0.0.1:{endpoint.port}{endpoint.path} (return to end)")
        sys.stdin.readline()
    finally:
        server.stop()


def _table(options: argparse.Namespace) -> None:
    _say(load_settings(options.peer).table())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
