"""A group of real processes on a scripted backend."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.frontends.orders import Role
from service.frontends.supervisor import GroupPlan, Supervisor
from tests.frontends.scripted_backend import HELD_LIMIT_S, LIMIT_S, hold_in
from tests.service.conftest import SIZE, _scripted_bundle

PACKAGE_ROOT = Path(__file__).parents[2]


@dataclass
class Group:
    """A running group, and a client of it."""

    supervisor: Supervisor
    running: asyncio.Task[int]
    http: httpx.AsyncClient
    root: Path

    def kill(self, role: Role, index: int = 0) -> int:
        pid = self.pid_of(role, index)
        os.kill(pid, signal.SIGKILL)
        return pid

    def pid_of(self, role: Role, index: int = 0) -> int:
        pid = self.supervisor.pid_of(role, index)
        assert pid is not None
        return pid

    async def until_ready(self) -> None:
        """Wait until a front end takes requests; others may not yet."""
        await until(self._is_ready)
        assert not self.running.done()

    async def until_answered(self, number: int) -> None:
        """Ask for an image until it is answered: front ends find another engine one by one."""

        async def is_answered() -> bool:
            answer = await self.http.post("/classify", content=npy_image(number))
            assert answer.status_code in {200, 503}
            return answer.is_success

        await until(is_answered)

    async def _is_ready(self) -> bool:
        try:
            return (await self.http.get("/health/ready")).is_success
        except httpx.TransportError:
            return False

    async def counted(self, name: str) -> float:
        text = (await self.http.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


async def until(is_so) -> None:
    """Ask again and again; the limit is for what never comes, on a machine however busy."""
    async with asyncio.timeout(LIMIT_S):
        while not await is_so():  # noqa: ASYNC110 - of another process, which tells nobody
            await asyncio.sleep(0.01)


def npy_image(number: int) -> bytes:
    """An image that the scripted backend knows by its number."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[0, 0, 0] = number
    return npy(pixels)


def npy(pixels: np.ndarray) -> bytes:
    body = io.BytesIO()
    np.save(body, pixels)
    return body.getvalue()


@pytest.fixture
def write_scripted_bundle() -> Callable[..., Path]:
    """Writes a bundle of dummy graphs into a root."""
    return _scripted_bundle


@pytest.fixture
def bundle_root(tmp_path: Path) -> Path:
    _scripted_bundle(tmp_path)
    return tmp_path


@pytest.fixture
def group(bundle_root: Path) -> Callable[..., AbstractAsyncContextManager[Group]]:
    """Starts groups whose settings differ from the defaults by what is passed."""

    @asynccontextmanager
    async def start(num_front_ends: int = 2, **settings: object) -> AsyncIterator[Group]:
        given = {f"ANYTIME_{name.upper()}": str(value) for name, value in settings.items()}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ANYTIME_")}
        plan = GroupPlan(
            num_front_ends=num_front_ends,
            host="127.0.0.1",
            port=0,
            environment=inherited
            | {
                "ANYTIME_MODEL_STORE": str(bundle_root),
                "ANYTIME_LOG_LEVEL": "error",
                "ANYTIME_MAX_BATCH": "4",
                "ANYTIME_WEDGED_S": str(2 * HELD_LIMIT_S),  # who is held does not hang
                "PYTHONPATH": str(PACKAGE_ROOT),
            }
            | given,
            leave_within_s=10.0,
            build="tests.frontends.scripted_backend:build",
        )
        supervisor = Supervisor(plan)
        running = asyncio.create_task(supervisor.run())
        # A connection of its own for each request, so that any front end may get it.
        limits = httpx.Limits(max_keepalive_connections=0)
        url = f"http://127.0.0.1:{supervisor.port}"
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=HELD_LIMIT_S) as http:
            found = Group(supervisor, running, http, bundle_root)
            try:
                await found.until_ready()
                yield found
            finally:
                hold_in(bundle_root).unlink(missing_ok=True)
                supervisor.leave()
                await running

    return start
