"""Front end and engine in one process, over a real socket and real shared memory."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from model_store.catalog import Catalog
from model_store.policies.choose import PolicyName
from model_store.windows import BatchBudget, BatchWindow
from service.backends.base import StageKey
from service.backends.fake import FakeBackend, FakeModel, Gate, StageHook, numbered_images
from service.engine.clock import MonotonicClock
from service.engine.door import EngineDoor, WindowRun
from service.engine.engine import Engine
from service.engine.observer import SilentObserver
from service.engine.request import EngineLimits, ExitLimits, ExitReason, ImageOutcome, Terms
from service.engine.stage_costs import StageCosts
from service.errors import BackendFailed, DeadlineInfeasible, NotReady, Overloaded, ReplicaLost
from service.frontends.finder import FrontEnd
from service.frontends.host import EngineHost
from service.frontends.link import RemoteTicket
from service.frontends.remote import RemoteEngine
from service.models import Model, Models, open_models
from tests.service.conftest import NUM_CLASSES, SIZE

CLOCK = MonotonicClock()


@dataclass
class Pair:
    """A front end's engine, and the one behind it."""

    remote: RemoteEngine
    engine: Engine
    backend: FakeBackend
    host: EngineHost
    models: Models
    serving: asyncio.Task[None]

    @property
    def model(self) -> Model:
        return self.models.find(None)

    def submit(self, number=0, *, limits=None, due_at=None, **asked):
        return self.remote.submit(
            self.model.key,
            images(number),
            limits or limits_of(),
            arrived_at=CLOCK.now(),
            due_at=due_at or CLOCK.now() + 10,
            **asked,
        )

    def stage_calls(self) -> list[tuple[int, tuple[int, ...]]]:
        return [(call.stage.stage_index, call.images) for call in self.backend.calls]


def limits_of(**given) -> ExitLimits:
    default = {
        "deadline_at": None,
        "budget_macs": None,
        "min_confidence": None,
        "min_exit": 0,
        "max_exit": 2,
        "every_classifier": False,
    }
    return ExitLimits(**(default | given))


def images(*numbers: int) -> np.ndarray:
    return numbered_images(numbers, shape=(3, SIZE, SIZE))


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - of frames that pass meanwhile
            await asyncio.sleep(0)


@pytest.fixture
def pair(write_scripted_bundle, tmp_path) -> Callable[..., AbstractAsyncContextManager[Pair]]:
    @asynccontextmanager
    async def start(
        *,
        hooks: Sequence[StageHook] = (),
        limits: EngineLimits | None = None,
        stage_s: float = 0.0,
    ) -> AsyncIterator[Pair]:
        write_scripted_bundle(tmp_path)
        models = open_models(Catalog([tmp_path]), default=None, allow_executable=False)
        script = FakeModel((0.5, 0.7, 0.9), num_classes=NUM_CLASSES)
        backend = FakeBackend({models.default: script}, hooks=hooks)
        costs, limits = StageCosts(max_batch=8), limits or EngineLimits()
        for stage_index in range(3):
            for size in costs.buckets:
                stage = StageKey(models.default, stage_index)
                costs.profile(stage, size, trunk_s=stage_s * size, classifier_s=0.0)
        engine = Engine(
            backend=backend,
            models={model.key: model.served for model in models},
            costs=costs,
            limits=limits,
            clock=CLOCK,
            observer=SilentObserver(),
        )
        engine.start()
        host = EngineHost(engine, models, clock=CLOCK)
        listening = asyncio.Event()
        address = str(tmp_path / "engine.sock")
        serving = asyncio.create_task(host.serve(address, listening=listening.set))
        await listening.wait()
        remote = RemoteEngine(
            models,
            stage_costs=StageCosts(max_batch=8),
            limits=limits,
            clock=CLOCK,
            observer=SilentObserver(),
            front_end=FrontEnd(0, 1, address),
        )
        await remote.connect(5.0)
        try:
            yield Pair(remote, engine, backend, host, models, serving)
        finally:
            await remote.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            engine.close()

    return start


async def test_an_answer_from_afar_is_the_engines_own(pair):
    async with pair() as both:
        limits = limits_of(every_classifier=True)

        afar = await both.submit(3, limits=limits).outcome
        near = await both.engine.submit(
            both.model.key, images(3), limits, arrived_at=CLOCK.now(), due_at=CLOCK.now() + 10
        ).outcome

        assert afar.spent_macs == near.spent_macs
        assert afar.answer.reason is near.answer.reason
        for one, other in zip(afar.answer.passed, near.answer.passed, strict=True):
            assert (one.exit_index, one.confidence) == (other.exit_index, other.confidence)
            np.testing.assert_array_equal(one.logits, other.logits)


async def test_many_requests_at_once_each_get_their_own_answer(pair):
    async with pair() as both:
        tickets = [both.submit(number) for number in range(200)]

        outcomes = await asyncio.gather(*(ticket.outcome for ticket in tickets))

        labels = [int(outcome.answer.record.logits.argmax()) for outcome in outcomes]
        assert labels == [number % NUM_CLASSES for number in range(200)]


async def test_limits_cross_as_they_were_given(pair):
    async with pair() as both:
        outcome = await both.submit(limits=limits_of(max_exit=1)).outcome
        budget = await both.submit(limits=limits_of(budget_macs=320)).outcome
        sure = await both.submit(limits=limits_of(min_confidence=0.4)).outcome

        assert outcome.answer.reason is ExitReason.MAX_EXIT
        assert budget.answer.reason is ExitReason.BUDGET
        assert (sure.answer.reason, sure.answer.record.exit_index) == (ExitReason.CONFIDENT, 0)


async def test_who_gives_up_frees_his_place_and_no_further_stage_runs(pair):
    gate = Gate(0)
    async with pair(hooks=[gate]) as both:
        ticket = both.submit(1)
        await asyncio.to_thread(gate.entered.wait)
        ticket.outcome.cancel()
        ticket.abandon()
        await until(lambda: both.engine.num_in_flight == 0)
        gate.opened.set()

        await both.submit(2).outcome

        assert [stage for stage, numbers in both.stage_calls() if 1 in numbers] == [0]


async def test_a_deadline_that_nobody_could_keep_is_refused_at_once(pair):
    async with pair(stage_s=0.01) as both:
        late = limits_of(deadline_at=CLOCK.now() + 0.005)

        with pytest.raises(DeadlineInfeasible):
            both.submit(limits=late)

        assert not both.backend.calls


async def test_requests_beyond_the_room_are_refused_before_the_engine_counts_them(pair):
    gate = Gate(0)
    async with pair(hooks=[gate], limits=EngineLimits(max_in_flight=8)) as both:
        taken = [both.submit(number) for number in range(6)]

        with pytest.raises(Overloaded):
            both.submit(7)

        gate.opened.set()
        await asyncio.gather(*(ticket.outcome for ticket in taken))


async def test_deadline_work_that_does_not_fit_is_refused_in_the_same_turn(pair):
    gate = Gate(0)
    async with pair(hooks=[gate], stage_s=0.01) as both:
        limits = limits_of(deadline_at=CLOCK.now() + 0.1, max_exit=0)
        taken: list[RemoteTicket] = []

        with pytest.raises(Overloaded) as refused:
            taken.extend(both.submit(number, limits=limits) for number in range(100))

        gate.opened.set()
        await asyncio.gather(*(ticket.outcome for ticket in taken))
        assert 4 <= len(taken) <= 10
        assert refused.value.retry_after_s > 0


async def test_what_is_charged_twice_is_given_back(pair):
    async with pair() as both:
        with both.remote.reserve(
            Terms(both.model.key, 1, CLOCK.now() + 10, CLOCK.now() + 10)
        ) as place:
            await until(lambda: both.engine.num_in_flight == 1)
            await both.submit(reservation=place).outcome

        await until(lambda: both.engine.num_in_flight == 0)
        await until(lambda: both.remote.num_in_flight == 0)


async def test_a_failure_of_the_network_is_told_as_one(pair):
    def fail(call):
        raise BackendFailed("scripted")

    async with pair(hooks=[fail]) as both:
        outcome = await both.submit().outcome

        assert isinstance(outcome.error, BackendFailed)


async def test_a_lost_engine_settles_everybody_and_another_is_found(pair):
    gate = Gate(1)
    async with pair(hooks=[gate]) as both:
        answered = both.submit(1, limits=limits_of(every_classifier=True))
        await asyncio.to_thread(gate.entered.wait)
        unanswered = both.submit(2)

        both.host.close()
        outcomes = await asyncio.gather(answered.outcome, unanswered.outcome)
        gate.opened.set()

        assert outcomes[0].answer.reason is ExitReason.FAILED
        assert outcomes[0].answer.record.exit_index == 0
        assert isinstance(outcomes[1].error, ReplicaLost)
        assert not both.remote.is_alive
        with pytest.raises(NotReady):
            both.submit()
        await until(lambda: both.remote.is_alive and not both.engine.num_in_flight)
        assert (await both.submit(3).outcome).answer is not None


def window_of(
    model: Model, policy_name: PolicyName, *, num_images: int = 20, share: float | None = None
) -> tuple[BatchBudget, BatchWindow]:
    """The one window of a batch whose budget is a share of what full depth costs."""
    full_macs = num_images * model.served.costs.cumulative_macs[-1]
    batch = BatchBudget(
        model.served.costs,
        model.holdout,
        num_images=num_images,
        budget_macs=None if share is None else round(share * full_macs),
        policy_name=policy_name,
        window_size=num_images,
    )
    window = batch.open_window()
    assert window is not None
    return batch, window


def run_of(window: BatchWindow, policy_name: PolicyName) -> WindowRun:
    """Without a deadline."""
    now = CLOCK.now()
    return WindowRun(window, policy_name, now, now + 60, None, None, 0.0)


async def run_nearby_or_afar(
    engine: EngineDoor, model: Model, run: WindowRun, *numbers: int
) -> tuple[ImageOutcome, ...]:
    with engine.reserve(Terms(model.key, len(numbers), run.due_at, None)) as place:
        return await engine.run_window(model.key, images(*numbers), run, place)


def exits_of(outcomes: Sequence[ImageOutcome]) -> list[tuple[int, ExitReason] | None]:
    """From which exit each image is answered, and why."""
    answers = [outcome.answer for outcome in outcomes]
    return [None if a is None else (a.record.exit_index, a.reason) for a in answers]


@pytest.mark.parametrize("policy_name", list(PolicyName))
@pytest.mark.parametrize("share", [0.4, 0.7, 1.0, None])
async def test_a_window_afar_answers_and_spends_as_one_nearby(pair, policy_name, share):
    async with pair() as both:
        model = both.model
        near_batch, near = window_of(model, policy_name, share=share)
        afar_batch, afar = window_of(model, policy_name, share=share)

        outcomes = await run_nearby_or_afar(
            both.remote, model, run_of(afar, policy_name), *range(20)
        )
        expected = await run_nearby_or_afar(
            both.engine, model, run_of(near, policy_name), *range(20)
        )

        assert exits_of(outcomes) == exits_of(expected)
        assert [o.spent_macs for o in outcomes] == [o.spent_macs for o in expected]
        assert afar_batch.spent_macs == near_batch.spent_macs


async def test_a_window_that_nobody_waits_for_runs_no_further_stage(pair):
    gate = Gate(0)
    async with pair(hooks=[gate]) as both:
        _, window = window_of(both.model, PolicyName.TOPK, num_images=4)
        running = asyncio.create_task(
            run_nearby_or_afar(both.remote, both.model, run_of(window, PolicyName.TOPK), 1, 2, 3, 4)
        )
        await asyncio.to_thread(gate.entered.wait)
        running.cancel()
        await until(lambda: both.engine.num_in_flight == 0)
        gate.opened.set()
        await both.submit(9).outcome

        assert [stage for stage, numbers in both.stage_calls() if 1 in numbers] == [0]


async def test_a_window_whose_engine_is_lost_keeps_the_answers_it_has(pair):
    gate = Gate(1)
    async with pair(hooks=[gate]) as both:
        batch, window = window_of(both.model, PolicyName.GEOMETRIC, num_images=4, share=0.7)
        running = asyncio.create_task(
            run_nearby_or_afar(
                both.remote, both.model, run_of(window, PolicyName.GEOMETRIC), 1, 2, 3, 4
            )
        )
        await asyncio.to_thread(gate.entered.wait)

        both.host.close()
        outcomes = await running
        gate.opened.set()

        assert exits_of(outcomes) == [(0, ExitReason.FAILED)] * 4
        assert batch.spent_macs <= (batch.plan.budget_macs or 0)


async def test_a_place_holds_only_where_it_was_given(pair):
    async with pair() as both:
        terms = Terms(both.model.key, 1, CLOCK.now() + 10, None)
        with both.engine.reserve(terms) as near, both.remote.reserve(terms) as afar:
            with pytest.raises(TypeError, match="another engine"):
                both.submit(reservation=near)
            with pytest.raises(TypeError, match="another engine"):
                both.engine.submit(
                    both.model.key,
                    images(0),
                    limits_of(),
                    arrived_at=CLOCK.now(),
                    due_at=CLOCK.now() + 10,
                    reservation=afar,
                )


async def test_how_late_answers_leave_is_learnt_by_the_engine(pair):
    async with pair() as both:
        for _ in range(1000):
            both.remote.margin.observe(0.004)
        await until(lambda: both.engine.margin.learnt_s >= 0.004)

        def is_as_learnt() -> bool:
            both.remote.times(both.model.key)  # looks at the board, unless it just has
            return math.isclose(both.remote.margin.margin_s(1.0), both.engine.margin.learnt_s)

        await until(is_as_learnt)


async def test_what_stages_take_is_known_afar(pair):
    async with pair(stage_s=0.01) as both:
        for exit_index in range(3):
            near = both.engine.expected_exit_s(both.model.key, exit_index, 4)
            assert both.remote.expected_exit_s(both.model.key, exit_index, 4) == pytest.approx(near)
