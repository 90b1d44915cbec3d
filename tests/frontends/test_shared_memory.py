import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.request import Answer, ExitLimits, ExitReason, ExitRecord, ImageOutcome
from service.errors import (
    BackendFailed,
    BudgetTooSmall,
    DeadlineInfeasible,
    DeadlineMissed,
    EngineStopped,
    NotReady,
    Overloaded,
    ReplicaLost,
    ServiceError,
    ShuttingDown,
)
from service.frontends.board import Board, LedgerView, Pending, PublishedBucket
from service.frontends.error_form import read_error, write_error
from service.frontends.slot_form import SlotForm
from service.frontends.slots import SlotRequest, Slots
from service.frontends.wire import Handlers, Kind, ProtocolBroken, Wire
from service.shared_block import SharedBlock

FORM = SlotForm(num_exits=3, num_classes=4, num_values=12)


def record_of(exit_index: int) -> ExitRecord:
    return ExitRecord(exit_index, np.arange(4, dtype=np.float32) + exit_index, 0.5)


def test_memory_is_seen_by_whoever_has_its_descriptor_and_has_no_name():
    shown = Path("/dev/shm")  # noqa: S108 - where memory with a name would be seen
    names_before = set(shown.iterdir())
    block = SharedBlock.create(4096)
    other = SharedBlock.attach(os.dup(block.fd))

    block.buffer[7] = 42

    assert other.buffer[7] == 42
    assert set(shown.iterdir()) == names_before
    block.close_descriptor()


def test_memory_that_could_be_cut_short_is_not_mapped():
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)

    with pytest.raises(OSError, match="cut short"):
        SharedBlock.attach(fd)


def test_a_request_is_read_as_it_was_written():
    slots, _ = Slots.create(FORM, 2)
    full = ExitLimits(12.5, 10**12, 0.9, 1, 2, every_classifier=True)
    bare = ExitLimits(None, None, None, 0, 2, every_classifier=False)

    for slot, asked in enumerate(
        [SlotRequest(1, full, 1.0, 2.0, 7), SlotRequest(0, bare, 3.0, 4.0, None)]
    ):
        slots.put_request(slot, asked)
        assert slots.request(slot) == asked


def test_an_outcome_is_read_as_it_was_written_and_outlives_its_slot():
    slots, _ = Slots.create(FORM, 1)
    records = (record_of(0), record_of(2))
    answer = Answer(records[-1], ExitReason.LOAD, records)
    slots.put_outcome(0, ImageOutcome(answer, None, 660, 0.25, 0.125))

    read = slots.outcome(0, 4)
    slots.put_outcome(0, ImageOutcome(None, EngineStopped(), 0, 0.0, 0.0))

    assert read.answer is not None
    assert (read.answer.reason, read.spent_macs, read.compute_s) == (ExitReason.LOAD, 660, 0.25)
    assert [record.exit_index for record in read.answer.passed] == [0, 2]
    np.testing.assert_array_equal(read.answer.record.logits, records[-1].logits)


def test_a_lost_request_has_the_answers_left_so_far_if_it_may():
    slots, _ = Slots.create(FORM, 1)
    limits = ExitLimits(None, None, None, 0, 2, every_classifier=False)
    slots.put_request(0, SlotRequest(0, limits, 0.0, 0.0, None))
    nothing = slots.lost_outcome(0, 4, mandatory_exit=0)
    slots.add_record(0, record_of(0))

    answered = slots.lost_outcome(0, 4, mandatory_exit=0)
    too_early = slots.lost_outcome(0, 4, mandatory_exit=1)

    assert isinstance(nothing.error, ReplicaLost)
    assert answered.answer is not None
    assert answered.answer.reason is ExitReason.FAILED
    assert isinstance(too_early.error, ReplicaLost)


@pytest.mark.parametrize(
    "error",
    [
        Overloaded(retry_after_s=0.5),
        DeadlineInfeasible(minimum_s=0.01),
        DeadlineMissed(elapsed_s=0.02),
        BackendFailed("stage 2 fails"),
        EngineStopped(),
        NotReady(retry_after_s=2.0),
        ReplicaLost(retry_after_s=3.0),
        ShuttingDown(),
        BudgetTooSmall(minimum_macs=123),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_keep_their_type_number_and_words(error: ServiceError):
    read = read_error(write_error(error))

    assert type(read) is type(error)
    assert str(read) == str(error)
    assert vars(read) == vars(error)


def test_an_error_nobody_foresaw_is_told_as_a_failure():
    assert type(read_error(write_error(ServiceError("odd")))) is BackendFailed


def ledger_of(**given) -> LedgerView:
    default: dict[str, Any] = {
        "num_in_flight": 0,
        "num_background": 0,
        "feature_bytes": 0,
        "full_depth_us": 0,
        "margin_s": 0.002,
        "stretch": 1.0,
        "busy_until": (float("-inf"),),
        "buckets": (),
    }
    return LedgerView(**(default | given))


def boards() -> tuple[Board, Board]:
    """The engine's board and a front end's."""
    board, block = Board.create(4)
    return board, Board(SharedBlock.attach(block.fd), 4)


def test_a_ledger_is_seen_as_it_was_shown():
    engines, front_ends = boards()
    shown = ledger_of(
        num_in_flight=3, buckets=(PublishedBucket((1.5,), 1.25, 900, 300),), busy_until=(2.0, 3.0)
    )
    assert front_ends.ledger() is None

    engines.publish(shown)

    assert front_ends.ledger() == shown


def test_what_another_front_end_let_in_counts_until_the_engine_has_taken_it():
    engines, front_ends = boards()
    engines.publish(ledger_of())
    front_ends.put_cell(1, 5, Pending(2, 1, 100, 700))

    assert front_ends.pending_of_others(0, 2) == Pending(2, 1, 100, 700)
    assert front_ends.pending_of_others(1, 2) == Pending()
    taken = [0] * 64
    taken[1] = 5
    engines.publish(ledger_of(taken=tuple(taken)))

    assert front_ends.pending_of_others(0, 2) == Pending()


class End:
    """One end of a wire, and what came."""

    def __init__(self, connection: socket.socket) -> None:
        self.frames: list[tuple[int, float]] = []
        self.documents: list[tuple[dict[str, int], int | None]] = []
        self.ended = asyncio.Event()
        self.arrived = asyncio.Event()
        self.wire = Wire(
            connection,
            Handlers({Kind.SUBMIT: self._frame}, {Kind.WINDOW: self._document}, self.ended.set),
        )

    def _frame(self, slot: int, number: float) -> None:
        self.frames.append((slot, number))
        self.arrived.set()

    def _document(self, document: dict[str, int], fd: int | None) -> None:
        self.documents.append((document, fd))
        self.arrived.set()


def ends() -> tuple[End, End]:
    one, other = socket.socketpair()
    return End(one), End(other)


async def arrived(end: End, count: int) -> None:
    async with asyncio.timeout(5):
        while len(end.frames) + len(end.documents) < count:
            end.arrived.clear()
            await end.arrived.wait()


async def test_everything_arrives_in_order_even_if_the_socket_takes_little_at_a_time():
    one, other = ends()
    for slot in range(50_000):
        one.wire.send(Kind.SUBMIT, slot, slot / 2)

    await arrived(other, 50_000)

    assert other.frames == [(slot, slot / 2) for slot in range(50_000)]
    one.wire.close()
    await other.ended.wait()


async def test_descriptors_arrive_with_their_documents():
    one, other = ends()
    blocks = [SharedBlock.create(4096 * (k + 1)) for k in range(20)]
    for k, block in enumerate(blocks):
        one.wire.send(Kind.SUBMIT, k)
        one.wire.send_document(Kind.WINDOW, {"number": k}, block.fd)
        block.close_descriptor()

    await arrived(other, 40)

    sizes = [SharedBlock.attach(fd).size_bytes for _, fd in other.documents if fd is not None]
    assert sizes == [4096 * (k + 1) for k in range(20)]
    one.wire.close()
    await other.ended.wait()


async def test_what_cannot_be_understood_ends_the_connection():
    one, other = ends()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(context["exception"])
    )
    one.wire.send(Kind.WINDOW, 1 << 30)

    await other.ended.wait()
    await one.ended.wait()

    assert isinstance(told[0], ProtocolBroken)
