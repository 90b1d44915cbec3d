"""The path of one batch, on a real engine with scripted answers."""

import asyncio
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model_store.policies.choose import PolicyName
from service.backends.fake import FailAt, Gate
from service.commands import BatchCommand, BoundBy
from service.engine.clock import MonotonicClock
from service.engine.request import ExitReason
from service.errors import (
    BackendFailed,
    BadRequest,
    BudgetTooSmall,
    DeadlineInfeasible,
    DeadlineMissed,
    ImageUndecodable,
    Overloaded,
)
from service.uploads import BatchUpload, Part

C1, C2, C3 = 110, 330, 660
D3 = 630


def frames(*numbers: int) -> BatchUpload:
    """An array of images, known by their first red."""
    pixels = np.zeros((len(numbers), 8, 8, 3), np.uint8)
    pixels[:, 0, 0, 0] = numbers
    sink = io.BytesIO()
    np.save(sink, pixels)
    return BatchUpload(array=sink.getvalue())


def command(upload: BatchUpload, **given) -> BatchCommand:
    return replace(
        BatchCommand(
            arrived_at=MonotonicClock().now(),
            received_s=0.0,
            upload=upload,
            model=None,
            deadline_s=None,
            budget_macs=None,
            policy=PolicyName.GEOMETRIC,
            top_k=1,
            detail=False,
        ),
        **given,
    )


async def test_without_a_budget_everybody_runs_straight_to_the_end(running):
    async with running() as world:
        done = await world.batch.classify(command(frames(1, 2, 3)))

    assert world.stages_run == [(0, 3, 0), (1, 3, 0), (2, 3, 3)]
    assert done.budget.spent_macs == 3 * D3
    assert (done.budget.policy, done.budget.bound_by) == (None, BoundBy.NONE)
    assert done.budget.exit_counts == (0, 0, 3)


@pytest.mark.parametrize("policy", list(PolicyName), ids=lambda policy: policy.value)
@pytest.mark.parametrize("budget_macs", [10 * C1, 10 * C1 + 219, 2500, 4000, 10 * D3 - 1])
async def test_a_budget_is_kept_and_used_up(running, policy, budget_macs):
    unsure = {k: (0.3 + 0.05 * k, 0.4 + 0.05 * k, 0.9) for k in range(10)}
    async with running(by_image=unsure) as world:
        done = await world.batch.classify(
            command(frames(*range(10)), budget_macs=budget_macs, policy=policy)
        )

    spent = sum(image.spent_macs for image in done.images)
    deeper = [image.answer.record.exit_index + 1 for image in done.images]
    cheapest = min((330 if k == 2 else 220 for k in deeper if k < 3), default=None)
    assert spent == done.budget.spent_macs <= budget_macs
    assert cheapest is None or budget_macs - spent < cheapest


async def test_the_most_confident_leave_first(running):
    by_image = {k: (0.3 + 0.05 * k, 0.5, 0.9) for k in range(4)}
    async with running(by_image=by_image) as world:
        done = await world.batch.classify(
            command(frames(0, 1, 2, 3), budget_macs=4 * C1 + 2 * 220, policy=PolicyName.TOPK)
        )

    assert [image.answer.record.exit_index for image in done.images] == [1, 1, 0, 0]
    assert done.images[3].answer.reason is ExitReason.RANK


async def test_windows_share_one_budget(running):
    async with running(window_size=4) as world:
        done = await world.batch.classify(command(frames(*range(10)), budget_macs=10 * 250))

    assert done.budget.windows == 3
    assert done.budget.spent_macs <= 2500
    assert [image.index for image in done.images] == list(range(10))


async def test_too_little_for_everybody_names_the_least(running):
    async with running() as world:
        with pytest.raises(BudgetTooSmall) as refused:
            await world.batch.classify(command(frames(1, 2), budget_macs=2 * C1 - 1))

    assert refused.value.minimum_macs == 2 * C1
    assert world.stages_run == []


def encoded(number: int) -> bytes:
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[0, 0, 0] = number
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "PNG")
    return sink.getvalue()


async def test_a_broken_image_gets_its_own_error_and_its_share_passes_on(running):
    parts = (Part("a.png", encoded(1)), Part("b.png", b"broken"), Part("c.png", encoded(2)))
    upload = BatchUpload(parts=parts, skipped=1)
    async with running() as world:
        done = await world.batch.classify(command(upload, budget_macs=2 * C1))

    assert [image.filename for image in done.images] == ["a.png", "b.png", "c.png"]
    assert isinstance(done.images[1].error, ImageUndecodable)
    assert done.images[1].spent_macs == 0
    assert done.budget.spent_macs == 2 * C1
    assert done.skipped == 1


async def test_no_image_at_all_and_none_that_decodes_are_told_apart(running):
    async with running() as world:
        with pytest.raises(BadRequest):
            await world.batch.classify(command(BatchUpload()))
        with pytest.raises(ImageUndecodable):
            await world.batch.classify(command(BatchUpload(parts=(Part("a", b"broken"),))))


async def test_detail_runs_every_classifier_and_needs_the_dearer_price_to_be_unbound(running):
    async with running() as world:
        done = await world.batch.classify(command(frames(1, 2), budget_macs=2 * C3, detail=True))
        bound = await world.batch.classify(command(frames(1, 2), budget_macs=2 * D3, detail=True))

    assert done.budget.spent_macs == 2 * C3
    assert done.budget.bound_by is BoundBy.NONE
    assert bound.budget.bound_by is BoundBy.BUDGET
    assert all(len(image.answer.passed) == 3 for image in done.images)


async def test_a_deadline_enters_as_a_smaller_budget(running):
    async with running(stage_s=(0.01, 0.1, 0.1)) as world:
        done = await world.batch.classify(command(frames(*range(8)), deadline_s=1.0))

    assert done.budget.bound_by is BoundBy.DEADLINE
    assert done.budget.requested_macs is None
    assert done.budget.planned_macs < 8 * C3
    assert done.deadline.remaining_s > 0


@pytest.mark.parametrize("budget_macs", [0, 8 * C1 - 1])
async def test_a_deadline_makes_no_budget_larger(running, budget_macs):
    async with running(stage_s=(0.01, 0.1, 0.1)) as world:
        with pytest.raises(BudgetTooSmall) as raised:
            await world.batch.classify(
                command(frames(*range(8)), deadline_s=1.0, budget_macs=budget_macs)
            )

    assert raised.value.minimum_macs == 8 * C1
    assert world.stages_run == []


async def test_a_far_deadline_binds_nothing_but_every_classifier_runs(running):
    async with running() as world:
        done = await world.batch.classify(command(frames(1), deadline_s=5.0, budget_macs=C3))

    assert done.budget.bound_by is BoundBy.NONE
    assert done.budget.spent_macs == C3


async def test_a_deadline_that_leaves_an_image_without_any_exit_is_refused(running):
    async with running(stage_s=(0.1, 0.1, 0.1)) as world:
        with pytest.raises(DeadlineInfeasible):
            await world.batch.classify(command(frames(*range(8)), deadline_s=0.5))

    assert world.stages_run == []


async def test_a_window_that_overruns_its_share_of_the_time_still_gets_its_first_exits(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate], window_size=2, stage_s=(0.01, 0.01, 0.01)) as world:
        # The first of two windows has half of the time, and its first stage takes longer.
        asyncio.get_running_loop().call_later(1.2, gate.opened.set)
        done = await world.batch.classify(command(frames(1, 2, 3, 4), deadline_s=2.0))

    assert [image.error for image in done.images] == [None] * 4
    assert done.deadline.remaining_s > 0


async def test_a_batch_late_by_what_held_the_server_up_is_told_to_come_again(running):
    late = command(
        frames(1, 2),
        deadline_s=0.5,
        arrived_at=MonotonicClock().now() - 0.4,
        received_s=0.4,
        held_up_s=0.4,
    )
    async with running(stage_s=(0.1, 0.1, 0.1)) as world:
        with pytest.raises(Overloaded):
            await world.batch.classify(late)

    assert world.stages_run == []


async def test_when_the_deadline_comes_the_answers_so_far_are_given(running):
    gate = Gate(stage_index=1)
    async with running(hooks=[gate]) as world:
        done = await world.batch.classify(command(frames(1, 2), deadline_s=0.2))
        gate.opened.set()

    assert [image.answer.reason for image in done.images] == [ExitReason.DEADLINE] * 2


async def test_no_exit_of_any_image_by_the_deadline_is_an_error(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate]) as world:
        with pytest.raises(DeadlineMissed):
            await world.batch.classify(command(frames(1, 2), deadline_s=0.1))
        gate.opened.set()


async def test_a_failed_stage_costs_its_images_and_no_others(running):
    async with running(hooks=[FailAt(1, images=frozenset({3}))], window_size=2) as world:
        done = await world.batch.classify(
            command(frames(1, 2, 3, 4), budget_macs=4 * C3 - 1, detail=True)
        )

    reasons = [image.answer.reason for image in done.images]
    assert reasons[2] is ExitReason.FAILED
    assert ExitReason.FAILED not in (reasons[1], reasons[3])
    assert done.budget.spent_macs <= 4 * C3 - 1


async def test_all_failed_before_any_exit_is_an_error(running):
    async with running(hooks=[FailAt(0)]) as world:
        with pytest.raises(BackendFailed):
            await world.batch.classify(command(frames(1, 2)))


async def test_a_caller_that_goes_away_stops_the_windows_to_come(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate], window_size=2) as world:
        asked = asyncio.create_task(world.batch.classify(command(frames(*range(8)))))
        await asyncio.to_thread(gate.entered.wait)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        gate.opened.set()
        await world.engine.drained()

        assert world.stages_run == [(0, 2, 0)]
        assert world.engine.num_in_flight == 0


async def test_the_parts_of_its_time_add_up(running):
    async with running() as world:
        done = await world.batch.classify(command(frames(*range(20))))

    timing = done.timing
    parts = timing.receive_s + timing.decode_s + timing.queue_s + timing.compute_s
    assert parts == pytest.approx(timing.total_s)
