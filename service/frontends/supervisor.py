"""Starts one engine process and several front ends, and others where one has died.

They share the socket that is bound here; who is free accepts. Told to leave, front ends drain
first, then the engine goes.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.frontends.orders import Orders, Role

EXIT_FAILED: Final = 1
_FIRST_PAUSE_S: Final = 0.1  # before what died is started again; doubled each time
_LONGEST_PAUSE_S: Final = 5.0
_STEADY_S: Final = 10.0  # who ran for so long and dies is started again at once
_KILL_S: Final = 5.0  # beyond the time to shut down, until who does not leave is killed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What is to run."""

    num_front_ends: int
    host: str
    port: int
    environment: Mapping[str, str]  # of every process, its settings included
    leave_within_s: float  # a front end, once told to
    build: str = "service.app:build_backend"


class Supervisor:
    """Runs a group of processes until it is told to leave. Belongs to the event loop.

    Args:
        plan: What is to run.
    """

    def __init__(self, plan: GroupPlan) -> None:
        self._plan = plan
        self._listener = _bound(plan.host, plan.port)
        self._folder = Path(tempfile.mkdtemp(prefix="anytime-"))
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._leaving = asyncio.Event()
        self._status = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def folder(self) -> Path:
        """Of the group's socket and counts; gone when `run` returns."""
        return self._folder

    def pid_of(self, role: Role, index: int = 0) -> int | None:
        """Return a process's id; None while there is none."""
        process = self._running.get(f"{role.value}-{index}")
        return None if process is None else process.pid

    def leave(self) -> None:
        """Begin to leave; a second time skips what front ends wait for, as with one process."""
        if self._leaving.is_set():
            self._tell(Role.FRONT_END, signal.SIGTERM)
        self._leaving.set()

    async def run(self) -> int:
        """Run the group, and return the exit status once all of it is gone."""
        try:
            ready = asyncio.Event()
            engine = asyncio.create_task(self._keep(Role.ENGINE, 0, ready))
            await _first(ready.wait(), self._leaving.wait(), engine)
            front_ends = [
                asyncio.create_task(self._keep(Role.FRONT_END, index, None))
                for index in range(self._plan.num_front_ends if ready.is_set() else 0)
            ]
            await self._leaving.wait()
            self._tell(Role.FRONT_END, signal.SIGTERM)
            await self._gone(front_ends, Role.FRONT_END)
            self._tell(Role.ENGINE, signal.SIGTERM)
            await self._gone([engine], Role.ENGINE)
        finally:
            for process in self._running.values():
                process.kill()
            self._listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        return self._status

    async def _keep(self, role: Role, index: int, ready: asyncio.Event | None) -> None:
        """Start a process, and another whenever it has died, until the group leaves."""
        loop = asyncio.get_running_loop()
        pause_s, has_run = _FIRST_PAUSE_S, False
        while not self._leaving.is_set():
            began_at = loop.time()
            is_up, status = await self._run_once(role, index, ready)
            if self._leaving.is_set():
                return
            name = f"{role.value}-{index}"
            has_run = has_run or is_up or (role is Role.FRONT_END and status < 0)
            if status == EXIT_FAILED and not has_run:
                # It has said why; started again it would say the same.
                self._status = EXIT_FAILED
                self._leaving.set()
                return
            has_run = True
            if loop.time() - began_at > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            logger.error("%s ended with status %d; another in %.1f s", name, status, pause_s)
            await _first(self._leaving.wait(), asyncio.sleep(pause_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _run_once(
        self, role: Role, index: int, ready: asyncio.Event | None
    ) -> tuple[bool, int]:
        """Run a process to its end; return whether it was ready, and its status."""
        is_engine = role is Role.ENGINE
        reader, writer = os.pipe() if is_engine else (None, None)
        passed = [fd for fd in (writer, None if is_engine else self._listener.fileno()) if fd]
        orders = Orders(
            role=role,
            index=index,
            num_front_ends=self._plan.num_front_ends,
            folder=self._folder,
            supervisor=os.getpid(),
            listener=None if is_engine else self._listener.fileno(),
            ready=writer,
            build=self._plan.build,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service.frontends.process",
            orders.model_dump_json(),
            pass_fds=passed,
            env=dict(self._plan.environment),
            start_new_session=True,  # a terminal interrupts the supervisor alone
        )
        self._running[orders.name] = process
        if writer is not None:
            os.close(writer)
        try:
            is_up = reader is not None and await _says_ready(reader)
            if is_up and ready is not None:
                ready.set()
            return is_up, await process.wait()
        finally:
            del self._running[orders.name]

    def _tell(self, role: Role, number: signal.Signals) -> None:
        for name, process in self._running.items():
            if name.startswith(role.value) and process.returncode is None:
                process.send_signal(number)

    async def _gone(self, tasks: list[asyncio.Task[None]], role: Role) -> None:
        """Wait until processes have left; who takes too long is killed."""
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._plan.leave_within_s + _KILL_S)
        if late:
            logger.error("%s does not leave and is killed", role.value)
            self._tell(role, signal.SIGKILL)
        await asyncio.gather(*tasks)


def serve_group(plan: GroupPlan) -> int:
    """Run a group until a signal asks to leave, and return the exit status."""

    async def run() -> int:
        supervisor = Supervisor(plan)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.leave)
        return await supervisor.run()

    return asyncio.run(run())


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that front ends will listen on; until one does, connections are refused."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


async def _says_ready(reader: int) -> bool:
    """Wait for a word from a process; False where it ended without one."""
    loop = asyncio.get_running_loop()
    said: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not said.done():
            said.set_result(None)

    loop.add_reader(reader, note)
    try:
        await said
        return bool(os.read(reader, 1))
    finally:
        loop.remove_reader(reader)
        os.close(reader)


async def _first(*waits: "asyncio.Future[None] | Coroutine[object, object, object]") -> None:
    """Wait for the first of several, and give up on those made here for the others."""
    own = [wait for wait in waits if not isinstance(wait, asyncio.Task)]
    tasks = {asyncio.ensure_future(wait) for wait in own}
    rest = {wait for wait in waits if isinstance(wait, asyncio.Task)}
    await asyncio.wait(tasks | rest, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
