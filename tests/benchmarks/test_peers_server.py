"""Peers serve our network as anybody would ask them to, and leave nothing behind."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.serving.peers.environments import interpreter, is_installed, requirements
from benchmarks.serving.peers.litserve import build as build_litserve
from benchmarks.serving.peers.mosec import build as build_mosec
from benchmarks.serving.peers.search import AXES
from benchmarks.serving.process import session_pids
from benchmarks.serving.server import Answer, ServerFailed

BUILD = {"litserve": build_litserve, "mosec": build_mosec}


@pytest.mark.parametrize("peer", AXES)
def test_every_package_of_a_peer_is_pinned(peer: str):
    lines = requirements(peer).read_text("utf-8").split()

    assert any(line.startswith(f"{peer}==") for line in lines)
    assert all(line.count("==") == 1 for line in lines)


def test_a_peer_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ServerFailed, match=r"python -m benchmarks\.serving\.peers install mosec"):
        interpreter("mosec")


@pytest.mark.parametrize("peer", BUILD)
def test_a_shallower_exit_may_keep_more_waiting(peer: str):
    sizes = [int(BUILD[peer](k).settings["queue_size"]) for k in range(7)]

    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]
    assert BUILD[peer](None).settings["queue_size"] == str(sizes[-1])


def test_an_answer_is_a_label_of_the_exit_it_was_built_for():
    server = build_mosec(2)

    assert server.read(b'{"label_index":7}') == Answer(7, 2)
    for body in (b"", b"[]", b'{"detail":"Request timed out"}'):
        with pytest.raises(ValueError, match=r".*"):
            server.read(body)


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"X", "Z"}


@pytest.mark.slow
@pytest.mark.parametrize("peer", BUILD)
def test_a_peer_answers_and_leaves_no_process_behind(peer: str):
    if not is_installed(peer):
        pytest.skip(f"{peer} is not installed")
    body = io.BytesIO()
    np.save(body, np.zeros((32, 32, 3), np.uint8))
    server = BUILD[peer](0)

    server.start()
    try:
        session = server.pid
        endpoint = server.endpoint(1000.0)
        url = f"http://127.0.0.1:{endpoint.port}{endpoint.path}"
        good = httpx.post(url, content=body.getvalue())
        bad = httpx.post(url, content=b"no image")
        restarted = server.pid
    finally:
        server.stop()

    assert server.read(good.content).exit_index == 0
    assert bad.status_code == 422
    assert not [pid for pid in (*session_pids(session), *session_pids(restarted)) if is_alive(pid)]
