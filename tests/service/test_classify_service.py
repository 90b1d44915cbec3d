"""The path of one request, on a real engine with scripted answers."""

import asyncio
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from service.backends.fake import FailAt, Gate
from service.commands import ClassifyAnnounced, ClassifyCommand
from service.engine.clock import MonotonicClock
from service.engine.request import ExitReason
from service.errors import (
    BackendFailed,
    BudgetTooSmall,
    DeadlineInfeasible,
    DeadlineMissed,
    ImageUndecodable,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
)
from service.uploads import Upload, UploadKind


def command(**given) -> ClassifyCommand:
    """A request for one image, its first red 7, with nothing asked for but what is given."""
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[0, 0, 0] = 7
    sink = io.BytesIO()
    Image.fromarray(rgb).save(sink, "PNG")
    bare = ClassifyCommand(
        arrived_at=MonotonicClock().now(),
        received_s=0.0,
        upload=Upload(UploadKind.ENCODED, sink.getvalue()),
        model=None,
        deadline_s=None,
        budget_macs=None,
        min_confidence=None,
        min_exit=0,
        max_exit=None,
        top_k=5,
        detail=False,
    )
    return bare._replace(**given)


async def test_a_lone_request_runs_straight_to_the_last_exit_and_one_classifier(running):
    async with running() as world:
        done = await world.classify.classify(command())

    assert world.stages_run == [(0, 1, 0), (1, 1, 0), (2, 1, 1)]
    assert done.answer.reason is ExitReason.LAST_EXIT
    assert done.spent_macs == done.costs.direct_macs[-1] == 630
    assert done.deadline is None


async def test_the_image_reaches_the_network_as_it_was_sent(running):
    async with running() as world:
        await world.classify.classify(command())

    assert world.backend.calls[0].images == (7,)


async def test_a_budget_alone_buys_the_deepest_exit_by_its_direct_price(running):
    async with running() as world:
        done = await world.classify.classify(command(budget_macs=329))

    assert (done.answer.record.exit_index, done.spent_macs) == (1, 320)
    assert done.answer.reason is ExitReason.BUDGET


async def test_a_budget_below_the_first_exit_names_what_it_costs(running):
    async with running() as world:
        with pytest.raises(BudgetTooSmall) as refused:
            await world.classify.classify(command(budget_macs=109))

    assert refused.value.minimum_macs == 110
    assert world.stages_run == []


async def test_min_exit_makes_a_budget_dearer(running):
    async with running() as world:
        with pytest.raises(BudgetTooSmall) as refused:
            await world.classify.classify(command(budget_macs=300, min_exit=1))

    assert refused.value.minimum_macs == 320


async def test_min_confidence_stops_at_the_first_confident_exit(running):
    async with running((0.5, 0.8, 0.9)) as world:
        done = await world.classify.classify(command(min_confidence=0.75))

    assert done.answer.record.exit_index == 1
    assert done.answer.reason is ExitReason.CONFIDENT
    assert done.spent_macs == 330


async def test_detail_runs_every_classifier_and_charges_for_it(running):
    async with running() as world:
        done = await world.classify.classify(command(detail=True))

    assert [record.exit_index for record in done.answer.passed] == [0, 1, 2]
    assert done.spent_macs == done.costs.cumulative_macs[-1]


async def test_a_far_deadline_lets_it_run_to_the_end(running):
    async with running() as world:
        done = await world.classify.classify(command(deadline_s=5.0))

    assert done.answer.reason is ExitReason.LAST_EXIT
    assert done.deadline is not None
    assert done.deadline.remaining_s > 0


async def test_a_deadline_stops_it_where_the_next_stage_no_longer_fits(running):
    async with running(stage_s=(0.1, 9.0, 9.0)) as world:
        done = await world.classify.classify(command(deadline_s=0.6))

    assert (done.answer.record.exit_index, done.answer.reason) == (0, ExitReason.DEADLINE)


async def test_a_deadline_no_idle_server_keeps_is_refused_with_what_it_would_take(running):
    async with running(stage_s=(0.4, 0.4, 0.4)) as world:
        with pytest.raises(DeadlineInfeasible) as refused:
            await world.classify.classify(command(deadline_s=0.3))

    assert refused.value.minimum_s >= 0.4
    assert world.stages_run == []


async def test_time_spent_before_the_engine_counts_against_the_deadline(running):
    late = command(deadline_s=0.5, arrived_at=MonotonicClock().now() - 0.3, received_s=0.0)
    async with running(stage_s=(0.3, 0.3, 0.3)) as world:
        with pytest.raises(DeadlineInfeasible) as refused:
            await world.classify.classify(late)

    assert refused.value.minimum_s > 0.3


async def test_time_the_server_took_to_take_it_up_is_its_backlog_and_nobodys_fault(running):
    late = command(
        deadline_s=0.5, arrived_at=MonotonicClock().now() - 0.3, received_s=0.3, held_up_s=0.3
    )
    async with running(stage_s=(0.3, 0.3, 0.3)) as world:
        with pytest.raises(Overloaded) as refused:
            await world.classify.classify(late)

    assert refused.value.retry_after_s > 0


async def test_time_lost_while_others_were_served_is_not_said_to_be_hopeless(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate], stage_s=(0.3, 0.3, 0.3)) as world:
        other = asyncio.create_task(world.classify.classify(command()))
        await asyncio.to_thread(gate.entered.wait)
        since = MonotonicClock().now() - 0.3
        with pytest.raises(Overloaded):
            await world.classify.classify(command(deadline_s=0.5, arrived_at=since))
        with pytest.raises(DeadlineInfeasible):  # its own body came as late as that
            await world.classify.classify(command(deadline_s=0.5, arrived_at=since, received_s=0.3))
        gate.opened.set()
        await other


async def test_a_stage_still_running_at_the_deadline_is_not_waited_for(running):
    gate = Gate(stage_index=1)
    async with running(hooks=[gate]) as world:
        done = await world.classify.classify(command(deadline_s=0.2))
        gate.opened.set()

    assert (done.answer.record.exit_index, done.answer.reason) == (0, ExitReason.DEADLINE)
    # What was begun is paid for, answered or not.
    assert done.spent_macs > done.costs.cumulative_macs[0]


async def test_no_exit_by_the_deadline_is_said_when_it_is_due(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate]) as world:
        with pytest.raises(DeadlineMissed) as missed:
            await world.classify.classify(command(deadline_s=0.1))
        gate.opened.set()

    assert 0.05 < missed.value.elapsed_s <= 0.11


async def test_a_failed_stage_answers_from_the_exit_before(running):
    async with running(hooks=[FailAt(stage_index=1)]) as world:
        done = await world.classify.classify(command(detail=True))

    assert (done.answer.record.exit_index, done.answer.reason) == (0, ExitReason.FAILED)


async def test_a_failure_before_any_exit_is_an_error(running):
    async with running(hooks=[FailAt(stage_index=0)]) as world:
        with pytest.raises(BackendFailed):
            await world.classify.classify(command())


async def test_what_is_no_image_is_refused_before_the_engine(running):
    broken = Upload(UploadKind.ENCODED, b"\x89PNG\r\n\x1a\n")
    async with running() as world:
        with pytest.raises(ImageUndecodable):
            await world.classify.classify(command(upload=broken))

    assert world.stages_run == []


async def test_exits_the_model_does_not_have(running):
    async with running() as world:
        with pytest.raises(InvalidParameter):
            await world.classify.classify(command(min_exit=3))
        done = await world.classify.classify(command(max_exit=99))

    assert done.answer.record.exit_index == 2


async def test_a_model_that_is_not_served_is_named_with_those_that_are(running):
    async with running() as world:
        with pytest.raises(ModelNotFound) as missing:
            await world.classify.classify(command(model="nobody"))

    assert missing.value.available == ("scripted@1",)


async def test_a_caller_that_goes_away_frees_its_place_and_runs_no_further_stage(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate]) as world:
        asked = asyncio.create_task(world.classify.classify(command()))
        await asyncio.to_thread(gate.entered.wait)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        gate.opened.set()
        await world.engine.drained()

        assert world.stages_run == [(0, 1, 0)]
        assert world.engine.num_in_flight == 0


async def test_the_parts_of_its_time_add_up(running):
    async with running() as world:
        done = await world.classify.classify(command())

    timing = done.timing
    parts = timing.receive_s + timing.decode_s + timing.queue_s + timing.compute_s
    assert parts == pytest.approx(timing.total_s)


def announced(**given) -> ClassifyAnnounced:
    """A request whose body is on its way, with nothing asked for but what is given."""
    bare = ClassifyAnnounced(
        arrived_at=MonotonicClock().now(), held_up_s=0.0, model=None, deadline_s=None, min_exit=0
    )
    return replace(bare, **given)


async def test_a_deadline_no_server_keeps_is_refused_before_the_body_is_there(running):
    async with running(stage_s=(0.4, 0.4, 0.4)) as world:
        with pytest.raises(DeadlineInfeasible) as refused:
            world.classify.announce(announced(deadline_s=0.3))

    assert refused.value.minimum_s >= 0.4


async def test_an_announced_request_holds_its_place_until_it_is_over(running):
    async with running() as world:
        with world.classify.announce(announced(deadline_s=5.0)) as place:
            held = world.engine.num_in_flight
            await world.classify.classify(command(deadline_s=5.0), place)

        assert (held, world.engine.num_in_flight) == (1, 0)


async def test_an_announced_request_that_never_comes_gives_its_place_back(running):
    async with running() as world:
        with world.classify.announce(announced(deadline_s=5.0)):
            assert world.engine.num_in_flight == 1

        assert world.engine.num_in_flight == 0


async def test_without_a_deadline_nobody_is_kept_out_for_a_body_that_may_never_come(running):
    async with running() as world:
        with world.classify.announce(announced()):
            assert world.engine.num_in_flight == 0


async def test_a_tiny_image_is_handed_over_in_one_step(running):
    async with running() as world:
        begun = world.classify.begin(command())
        assert begun is not None
        await begun.outcome

        done = begun.finish()

    assert done.answer.reason is ExitReason.LAST_EXIT


async def test_an_image_that_must_wait_for_its_decoding_is_not_begun_at_once(running):
    sink = io.BytesIO()
    Image.new("RGB", (200, 200)).save(sink, "PNG")
    large = Upload(UploadKind.ENCODED, sink.getvalue())
    async with running() as world:
        assert world.classify.begin(command(upload=large)) is None
        done = await world.classify.classify(command(upload=large))

    assert done.answer.record.exit_index == 2


async def test_an_abandoned_image_frees_its_place_and_runs_no_further_stage(running):
    gate = Gate(stage_index=0)
    async with running(hooks=[gate]) as world:
        begun = world.classify.begin(command())
        assert begun is not None
        await asyncio.to_thread(gate.entered.wait)
        begun.abandon()
        gate.opened.set()
        await world.engine.drained()

        assert world.stages_run == [(0, 1, 0)]
        assert world.engine.num_in_flight == 0


async def test_an_answer_that_left_late_widens_the_margin(running):
    async with running() as world:
        done = await world.classify.classify(command(deadline_s=5.0))
        late = done._replace(answer_by=MonotonicClock().now() - 0.05)

        for _ in range(3):
            world.classify.delivered(late)

        assert world.engine.margin.margin_s(5.0) >= 0.05
