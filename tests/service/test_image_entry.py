"""Images that are refused: by whom, when, and at what cost to others."""

import asyncio
import gc
import io
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from service.backends.fake import Gate
from service.commands import ClassifyCommand
from service.engine.clock import MonotonicClock
from service.engine.observer import SilentObserver
from service.engine.request import EngineLimits
from service.errors import BadRequest, DeadlineInfeasible, Overloaded, RequestRejected
from service.recent_refusals import RecentRefusals
from service.uploads import Upload, UploadKind

ONE_AT_A_TIME = EngineLimits(max_in_flight=1)


def command(*, data: bytes | None = None, deadline_s: float = 5.0) -> ClassifyCommand:
    """A request for a black frame, or for what is sent in its place."""
    sink = io.BytesIO()
    np.save(sink, np.zeros((8, 8, 3), np.uint8))
    return ClassifyCommand(
        arrived_at=MonotonicClock().now(),
        received_s=0.0,
        upload=Upload(UploadKind.ARRAY, sink.getvalue() if data is None else data),
        model=None,
        deadline_s=deadline_s,
        budget_macs=None,
        min_confidence=None,
        min_exit=0,
        max_exit=None,
        top_k=1,
        detail=False,
    )


class Doorman(SilentObserver):
    """Remembers who was let in and who was not."""

    def __init__(self) -> None:
        self.num_admitted = 0
        self.refusals: list[type[RequestRejected]] = []

    def admitted(self, model: object, num_images: int) -> None:
        self.num_admitted += num_images

    def refused(self, error: RequestRejected) -> None:
        self.refusals.append(type(error))


async def test_in_a_time_of_refusals_nothing_is_decoded_in_vain(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate], limits=ONE_AT_A_TIME) as world:
        begun = world.classify.begin(command())
        with pytest.raises(BadRequest):
            world.classify.begin(command(data=b"broken"))
        with pytest.raises(Overloaded):
            world.classify.begin(command())

        with pytest.raises(Overloaded):
            world.classify.begin(command(data=b"broken"))

        gate.opened.set()
        await begun.outcome


async def test_after_a_time_of_refusals_images_are_let_in_as_before(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate], limits=ONE_AT_A_TIME) as world:
        first = world.classify.begin(command())
        with pytest.raises(Overloaded):
            world.classify.begin(command())
        gate.opened.set()
        await first.outcome

        second = world.classify.begin(command())
        await second.outcome

        assert second.finish().answer.record.exit_index == 2
        with pytest.raises(BadRequest):
            world.classify.begin(command(data=b"broken"))


async def test_whoever_is_asked_about_twice_is_counted_once(running):
    gate, doorman = Gate(stage_index=0), Doorman()
    async with running(hooks=[gate], limits=ONE_AT_A_TIME, observer=doorman) as world:
        first = world.classify.begin(command())
        for _ in range(3):
            with pytest.raises(Overloaded):
                world.classify.begin(command())
        gate.opened.set()
        await first.outcome
        await world.classify.begin(command()).outcome

    assert doorman.num_admitted == 2
    assert doorman.refusals == [Overloaded] * 3


async def test_a_hopeless_deadline_is_told_alike_before_decoding_and_behind_it(running):
    async with running(stage_s=(0.4, 0.4, 0.4)) as world:
        told = []
        for _ in range(3):
            with pytest.raises(DeadlineInfeasible) as refused:
                world.classify.begin(command(deadline_s=0.3))
            told.append(refused.value.minimum_s)

    assert told == pytest.approx([told[0]] * 3, abs=0.05)
    assert told[0] >= 0.4


@contextmanager
def no_garbage_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_a_refusal_is_gone_as_soon_as_nobody_looks_at_it(running):
    gate, left = Gate(stage_index=0), []
    async with running(hooks=[gate], limits=ONE_AT_A_TIME) as world:
        begun = world.classify.begin(command())
        with no_garbage_collector():
            for _ in range(2):  # behind decoding, and before
                try:
                    world.classify.begin(command())
                except Overloaded as refused:
                    left.append(weakref.ref(refused))
            are_gone = [reference() is None for reference in left]
        gate.opened.set()
        await asyncio.wait_for(begun.outcome, 5)

    assert are_gone == [True, True]


def test_one_refusal_makes_a_time_of_them_and_one_admission_ends_it():
    refusals = RecentRefusals()

    verdicts = [refusals.are_many]
    refusals.note_refused()
    verdicts.append(refusals.are_many)
    refusals.note_admitted()
    verdicts.append(refusals.are_many)

    assert verdicts == [False, True, False]


def test_a_few_admissions_among_many_refusals_do_not_end_it():
    refusals = RecentRefusals()
    for _ in range(10):
        refusals.note_refused()

    for _ in range(3):
        refusals.note_admitted()
        assert refusals.are_many
