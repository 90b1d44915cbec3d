"""An application over small fake services, driven in process."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Generic, TypeAlias, TypeVar

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from model_store.budget import Regime
from model_store.confidence import max_softmax
from model_store.costs import ExitCosts
from model_store.policies.choose import PolicyName
from service.api.application import Application, Surroundings, create_application
from service.api.health import Health
from service.api.server import DrainingServer
from service.api.services import Services
from service.backends.base import ModelKey
from service.commands import (
    BatchCommand,
    BatchDone,
    BatchImage,
    BoundBy,
    BudgetOutlook,
    BudgetReport,
    Classified,
    ClassifyAnnounced,
    ClassifyCommand,
    ExitInfo,
    ModelInfo,
    ModelVersions,
    PlanCommand,
    PlanDone,
    Timing,
)
from service.engine.request import Answer, ExitReason, ExitRecord, ImageOutcome
from service.errors import ModelNotFound, ServiceError
from service.metrics import new_registry
from service.settings import Settings

MODEL = ModelKey("net", "2")
LABELS = ("ant", "bee", "cat", "dog")
COSTS = ExitCosts((100, 200), (10, 20))
TEMPERATURES = (1.0, 2.0)
TIMING = Timing(total_s=0.010, receive_s=0.001, decode_s=0.002, queue_s=0.003, compute_s=0.004)

CommandT = TypeVar("CommandT")
DoneT = TypeVar("DoneT")


def record_of(exit_index: int, *logits: float) -> ExitRecord:
    row = np.array(logits, dtype=np.float32)
    return ExitRecord(exit_index, row, float(max_softmax(row, TEMPERATURES[exit_index])))


def answer_of(*records: ExitRecord, reason: ExitReason = ExitReason.LAST_EXIT) -> Answer:
    passed = records or (record_of(1, 0.0, 3.0, 1.0, -1.0),)
    return Answer(passed[-1], reason, passed)


def classified_of(**fields: object) -> Classified:
    default = Classified(
        model=MODEL,
        labels=LABELS,
        answer=answer_of(),
        temperatures=TEMPERATURES,
        costs=COSTS,
        spent_macs=320,
        deadline=None,
        timing=TIMING,
    )
    return default._replace(**fields)  # type: ignore[arg-type]  # a test's own fields


def batch_done_of(*images: BatchImage, **fields: object) -> BatchDone:
    default = BatchDone(
        model=MODEL,
        labels=LABELS,
        temperatures=TEMPERATURES,
        costs=COSTS,
        budget=BudgetReport(
            policy=PolicyName.GEOMETRIC,
            regime=Regime.CONSTRAINED,
            bound_by=BoundBy.BUDGET,
            requested_macs=400,
            planned_macs=330,
            q=0.25,
            ratio=0.75,
            exit_shares=(0.5, 0.5),
            thresholds=(None, 0.0),
            windows=1,
            spent_macs=330,
            exit_counts=(0, 1),
        ),
        deadline=None,
        skipped=0,
        images=images or (BatchImage(0, "a.png", answer_of(), None, 330),),
        timing=TIMING,
    )
    return replace(default, **fields)  # type: ignore[arg-type]  # a test's own fields


def plan_done_of() -> PlanDone:
    budget = BudgetOutlook(
        policy=None,
        regime=Regime.UNCONSTRAINED,
        bound_by=BoundBy.NONE,
        requested_macs=None,
        planned_macs=320,
        q=None,
        ratio=None,
        exit_shares=(0.0, 1.0),
        thresholds=(None, 0.0),
        windows=1,
    )
    return PlanDone(MODEL, 1, budget, 0.9, 320.0, 110, 320)


def model_info() -> ModelInfo:
    exits = (
        ExitInfo(0, 110, 110, 0.8, {1: 0.001, 32: 0.02}),
        ExitInfo(1, 330, 320, 0.9, {1: 0.002, 32: 0.04}),
    )
    siblings = ModelVersions("net", ("1", "2"), "2")
    return ModelInfo(MODEL, siblings, LABELS, 32, 32, 3, "fake", "cpu", exits)


@dataclass
class FakeInference(Generic[CommandT, DoneT]):
    """Gives what it was told to give to whatever it is asked; can be made to wait."""

    result: DoneT
    commands: list[CommandT] = field(default_factory=list)
    error: Exception | None = None
    is_waiting: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event | None = None
    was_cancelled: bool = False

    async def classify(self, command: CommandT) -> DoneT:
        self.commands.append(command)
        if self.error is not None:
            raise self.error
        if self.may_answer is not None:
            self.is_waiting.set()
            try:
                await self.may_answer.wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
        return self.result

    @property
    def command(self) -> CommandT:
        return self.commands[-1]


class FakeBegun:
    """One image on its way; a test says when it has arrived, and what of it."""

    def __init__(self, result: Classified) -> None:
        self.outcome: asyncio.Future[ImageOutcome] = asyncio.get_running_loop().create_future()
        self.result = result
        self.error: Exception | None = None
        self.was_abandoned = False

    def arrive(self, error: Exception | None = None) -> None:
        self.error = error
        self.outcome.set_result(ImageOutcome(None, error, 0, 0.0, 0.0))  # type: ignore[arg-type]

    def finish(self) -> Classified:
        if self.error is not None:
            raise self.error
        return self.result

    def abandon(self) -> None:
        self.was_abandoned = True


@dataclass
class FakeClassify(FakeInference[ClassifyCommand, Classified]):
    """Also remembers what it was told beforehand and afterwards."""

    announced: list[ClassifyAnnounced] = field(default_factory=list)
    places_held: int = 0
    refusal: ServiceError | None = None
    deliveries: list[Classified] = field(default_factory=list)
    decodes_at_once: bool = False
    begun: FakeBegun | None = None

    @contextmanager
    def announce(self, announced: ClassifyAnnounced) -> Iterator[None]:
        self.announced.append(announced)
        if self.refusal is not None:
            raise self.refusal
        self.places_held += 1
        try:
            yield
        finally:
            self.places_held -= 1

    async def classify(self, command: ClassifyCommand, place: object = None) -> Classified:
        return await super().classify(command)

    def begin(self, command: ClassifyCommand) -> FakeBegun | None:
        if not self.decodes_at_once:
            return None
        self.commands.append(command)
        if self.error is not None:
            raise self.error
        self.begun = FakeBegun(self.result)
        if self.may_answer is None:
            self.begun.arrive()
        self.is_waiting.set()
        return self.begun

    def delivered(self, done: Classified) -> None:
        self.deliveries.append(done)


@dataclass
class FakePlan:
    commands: list[PlanCommand] = field(default_factory=list)
    error: ServiceError | None = None

    def plan(self, command: PlanCommand) -> PlanDone:
        self.commands.append(command)
        if self.error is not None:
            raise self.error
        return plan_done_of()


class FakeModels:
    def versions(self) -> tuple[ModelVersions, ...]:
        return (model_info().siblings,)

    def describe(self, reference: str) -> ModelInfo:
        if reference not in {"net", "net@2"}:
            raise ModelNotFound(reference, available=("net@1", "net@2"))
        return model_info()


class FakeClock:
    """Time that stands still unless a test moves it."""

    def __init__(self) -> None:
        self.instant = 1000.0

    def now(self) -> float:
        return self.instant


@dataclass
class Api:
    """An application, what it calls, and a client of it."""

    app: Application
    http: httpx.AsyncClient
    classify: FakeClassify
    batch: FakeInference[BatchCommand, BatchDone]
    plan: FakePlan
    health: Health
    registry: CollectorRegistry
    clock: FakeClock
    is_engine_alive: list[bool]

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


StartApi: TypeAlias = Callable[..., Awaitable[Api]]


@pytest.fixture
async def start_api() -> AsyncIterator[StartApi]:
    """Start applications whose settings differ from the defaults by what is passed."""
    stack = AsyncExitStack()

    async def start(**changed: object) -> Api:
        settings = Settings.model_validate(changed)
        is_engine_alive = [True]
        health = Health(is_engine_alive=lambda: is_engine_alive[0], served=lambda: ("net@2",))
        registry = new_registry()
        clock = FakeClock()
        classify = FakeClassify(classified_of())
        batch = FakeInference[BatchCommand, BatchDone](batch_done_of())
        plan = FakePlan()
        app = create_application(
            Services(classify, batch, plan, FakeModels()),
            Surroundings(settings, health, registry, clock=clock),
        )
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://test")
        )
        return Api(app, http, classify, batch, plan, health, registry, clock, is_engine_alive)

    async with stack:
        yield start


@pytest.fixture
async def api(start_api: StartApi) -> Api:
    """An application with default settings."""
    return await start_api()


class AnnouncedServer(DrainingServer):
    """Says when it listens."""

    def __init__(self, api: Api, clock: FakeClock, **settings: object) -> None:
        given = Settings.model_validate({"port": 0, **settings})
        super().__init__(api.app, given, clock)
        self.is_listening = asyncio.Event()

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        self.is_listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self.handle_exit(signal.SIGTERM, None)


class Run:
    """A server that serves, and what it serves."""

    def __init__(self, api: Api, server: AnnouncedServer, serving: asyncio.Task[None]) -> None:
        self.api = api
        self.server = server
        self.serving = serving
        self.http = httpx.AsyncClient(base_url=server.url)

    async def closed(self) -> None:
        """Wait until the server takes nothing more."""
        transport = httpx.ASGITransport(self.api.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as inside:
            while (await inside.get("/plan?images=1")).json().get("status") != 503:
                await asyncio.to_thread(lambda: None)

    async def announced(self) -> None:
        """Wait until a body is waited for."""
        while not self.api.classify.places_held:
            await asyncio.to_thread(lambda: None)


Listen: TypeAlias = Callable[..., Awaitable[Run]]


@pytest.fixture
async def listen(api: Api) -> AsyncIterator[Listen]:
    """Serve on a free port of this machine, with a clock that a test moves."""
    runs: list[Run] = []

    async def start(**settings: object) -> Run:
        server = AnnouncedServer(api, api.clock, **settings)
        serving = asyncio.create_task(server.serve())
        await server.is_listening.wait()
        runs.append(Run(api, server, serving))
        return runs[-1]

    yield start
    for run in runs:
        await run.http.aclose()
        run.server.force_exit = run.server.should_exit = True
        with suppress(asyncio.CancelledError):
            await run.serving


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Put the process's logging back as it was."""
    root = logging.getLogger()
    names = ("uvicorn", "uvicorn.error", "uvicorn.access")
    before = (root.handlers[:], root.level)
    libraries = [(name, logging.getLogger(name).handlers[:]) for name in names]
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], level = before
    root.setLevel(level)
    for name, handlers in libraries:
        logging.getLogger(name).handlers[:] = handlers
