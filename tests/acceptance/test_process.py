"""The server as an operator meets it: a process, a port, signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.server_process import serving


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_answers_until_it_is_told_to_leave_and_exits_0():
    with serving({"ANYTIME_THREADS": "1", "ANYTIME_MAX_BATCH": "4"}) as server:
        ready = httpx.get(f"{server.url}/health/ready")
        os.kill(server.pid, signal.SIGTERM)

    assert ready.json()["ready"] is True
    assert server.returncode() == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ANYTIME_MODEL_STORE": "/nowhere"}, "/nowhere"),
        ({"ANYTIME_DEFAULT_MODEL": "nobody"}, "nobody"),
        ({"ANYTIME_PORT": "http"}, "port"),
        ({"ANYTIME_DEVICE": "cuda"}, "cuda"),
    ],
    ids=["no root", "no such default", "no number", "no such device"],
)
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_cannot_start_says_why_and_does_not(settings, said):
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env=os.environ | settings,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert said in done.stdout + done.stderr
