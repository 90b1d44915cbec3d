"""Several processes as an operator meets them: killed, told to leave, asked for what they count."""

import asyncio
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.frontends.orders import Role
from tests.frontends.conftest import PACKAGE_ROOT, npy, npy_image, until
from tests.frontends.scripted_backend import HELD_IMAGE, hold_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_group_answers_counts_and_leaves_nothing_behind(group):
    async with group() as running:
        pids = [
            running.supervisor.pid_of(Role.ENGINE),
            *(running.supervisor.pid_of(Role.FRONT_END, index) for index in range(2)),
        ]
        answers = await asyncio.gather(
            *(running.http.post("/classify?detail=exits", content=npy_image(k)) for k in range(20))
        )
        labels = [answer.json()["prediction"]["index"] for answer in answers]
        frames = np.zeros((9, 8, 8, 3), np.uint8)
        frames[:, 0, 0, 0] = range(9)
        batch = (await running.http.post("/batch?budget_flops=6000", content=npy(frames))).json()
        refused = await running.http.post("/classify?deadline_ms=0.001", content=npy_image(0))

        assert labels == [k % 4 for k in range(20)]
        assert [said["index"] for said in answers[0].json()["exits"]] == [0, 1, 2]
        assert [r["prediction"]["index"] for r in batch["results"]] == [k % 4 for k in range(9)]
        assert batch["budget"]["spent_macs"] <= 3000
        assert refused.json()["type"] == "/problems/deadline-infeasible"
        await until(lambda: counts(running, "anytime_exits_total", 29))
        await until(lambda: counts(running, 'anytime_requests_total{outcome="ok",route="/c', 20))
        folder = running.supervisor.folder

    assert not folder.exists()
    assert not any(map(is_alive, pids))
    assert running.running.result() == 0


async def counts(running, name: str, wanted: float) -> bool:
    counted: float = await running.counted(name)
    return counted == wanted


async def test_a_killed_front_end_gives_back_what_it_held_and_is_replaced(group):
    async with group() as running:
        hold_in(running.root).touch()
        # Until both hold something, for nobody says which of them accepts a connection.
        held = [
            asyncio.create_task(running.http.post("/classify", content=npy_image(HELD_IMAGE)))
            for _ in range(12)
        ]
        await until(lambda: counts(running, "anytime_images_admitted_total", 12))
        killed = running.kill(Role.FRONT_END, 0)
        await until_other(running, Role.FRONT_END, killed)
        hold_in(running.root).unlink()

        answers = await asyncio.gather(*held, return_exceptions=True)
        await running.until_answered(1)

        answered = [answer for answer in answers if isinstance(answer, httpx.Response)]
        assert all(answer.status_code == 200 for answer in answered)
        left = 12 - len(answered)
        await until(lambda: counts(running, "anytime_images_unanswered_total", left))
        await until(lambda: counts(running, "anytime_exits_total", len(answered) + 1))


async def until_other(running, role: Role, killed: int) -> None:
    async def is_other() -> bool:
        return running.supervisor.pid_of(role) not in {None, killed}

    await until(is_other)


async def test_a_killed_engine_is_replaced_and_everybody_who_waited_is_told(group):
    async with group() as running:
        hold_in(running.root).touch()

        def ask(query: str) -> asyncio.Task[httpx.Response]:
            asked = running.http.post(f"/classify?{query}", content=npy_image(HELD_IMAGE))
            return asyncio.create_task(asked)

        held = [ask("deadline_ms=120000")]
        await until(lambda: counts(running, "anytime_stage_batch_size_sum", 1))
        held.append(ask("max_exit=2"))
        await until(lambda: counts(running, "anytime_images_admitted_total", 2))
        killed = running.kill(Role.ENGINE)

        answered, lost = await asyncio.gather(*held)

        assert (answered.status_code, answered.json()["exit"]["reason"]) == (200, "failed")
        assert (lost.status_code, lost.json()["type"]) == (503, "/problems/replica-lost")
        hold_in(running.root).unlink()
        await until_other(running, Role.ENGINE, killed)
        await running.until_answered(1)
        assert await running.counted("anytime_images_admitted_total") >= 2


async def test_who_hangs_up_frees_his_place(group):
    async with group(max_in_flight=4) as running:
        hold_in(running.root).touch()
        gone = [
            asyncio.create_task(running.http.post("/classify", content=npy_image(HELD_IMAGE)))
            for _ in range(3)
        ]
        await until(lambda: counts(running, "anytime_images_admitted_total", 3))
        full = await running.http.post("/classify", content=npy_image(1))
        for request in gone:
            request.cancel()
        await until(lambda: counts(running, "anytime_images_unanswered_total", 3))
        hold_in(running.root).unlink()

        async def is_free() -> bool:
            answer: httpx.Response = await running.http.post("/classify", content=npy_image(1))
            return answer.is_success

        assert full.json()["type"] == "/problems/overloaded"
        await until(is_free)


async def test_what_is_in_flight_is_finished_before_the_group_is_gone(group):
    async with group() as running:
        hold_in(running.root).touch()
        held = asyncio.create_task(running.http.post("/classify", content=npy_image(HELD_IMAGE)))
        await until(lambda: counts(running, "anytime_images_admitted_total", 1))
        running.supervisor.leave()
        # Both were told: the one with nothing in flight goes, the other stays for its answer.
        await until(partial(is_a_front_end_gone, running))
        assert not held.done()
        hold_in(running.root).unlink()

        assert (await held).status_code == 200
        assert await running.running == 0


async def is_a_front_end_gone(running) -> bool:
    return None in {running.supervisor.pid_of(Role.FRONT_END, index) for index in range(2)}


async def test_nobody_outlives_a_supervisor_that_is_killed(bundle_root, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = (
        "import os\n"
        "from service.frontends.supervisor import GroupPlan, serve_group\n"
        f"serve_group(GroupPlan(2, '127.0.0.1', {port}, os.environ, 5.0,"
        " 'tests.frontends.scripted_backend:build'))"
    )
    environment = os.environ | {
        "ANYTIME_MODEL_STORE": str(bundle_root),
        "ANYTIME_LOG_LEVEL": "error",
        "PYTHONPATH": str(PACKAGE_ROOT),
        "TMPDIR": str(tmp_path),
    }
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=environment)
    children = await until_children(supervisor.pid, 3)

    supervisor.kill()
    await supervisor.wait()

    async def are_gone() -> bool:
        return not any(map(is_alive, children))

    await until(are_gone)
    assert not list(tmp_path.glob("anytime-*"))


async def until_children(pid: int, wanted: int) -> list[int]:
    def children() -> list[int]:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    async def are_there() -> bool:
        return len(children()) >= wanted

    await until(are_there)
    return children()


def test_a_group_that_cannot_start_says_so_by_its_status(tmp_path):
    script = (
        "import os, sys\n"
        "from service.frontends.supervisor import GroupPlan, serve_group\n"
        "sys.exit(serve_group(GroupPlan(1, '127.0.0.1', 0, os.environ, 5.0)))"
    )
    environment = os.environ | {
        "ANYTIME_MODEL_STORE": str(tmp_path / "nothing"),
        "PYTHONPATH": str(PACKAGE_ROOT),
    }

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 1
    assert "cannot run" in done.stderr
