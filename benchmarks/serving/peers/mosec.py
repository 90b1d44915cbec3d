"""`peer_server` for mosec."""

from benchmarks.serving.peers.peer_server import PeerServer
from benchmarks.serving.peers.settings import load_settings
from benchmarks.serving.server import ServerUnderTest


def build(exit_index: int | None) -> ServerUnderTest:
    """Return the server with the settings the search chose; see `PeerServer`."""
    return PeerServer("mosec", exit_index, searched=load_settings("mosec"))
