"""Requests and their outcomes as plain values in shared memory: one slot an image.

A front end fills in the request and its pixels, the engine process the records of exits and, last,
how it ended. Pixels are normalised by the front end: there are several of those and one engine,
which reads them where they lie, without a copy. They are not uint8, a quarter of the size, because
then the one engine process would have to normalise for all.
"""

import math
from dataclasses import dataclass
from struct import Struct
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from service.engine.request import Answer, ExitLimits, ExitReason, ExitRecord, ImageOutcome
from service.errors import ReplicaLost
from service.frontends.error_form import WrittenError, read_error, write_error
from service.frontends.slot_form import SlotForm
from service.shared_block import SharedBlock

# NaN stands for what was not given; every number fits a float exactly, MACs up to 2^53.
_REQUEST: Final = Struct("<IIIIIIddddd")
_OUTCOME: Final = Struct("<IIIIqddd208s")
_NUM_RECORDS: Final = Struct("<I")
_STATE: Final = Struct("<I")
_NUM_RECORDS_OFFSET: Final = 4
_MESSAGE_BYTES: Final = 208
_EVERY_CLASSIFIER: Final = 1
_ALIGNMENT: Final = 64
_MAX_MACS: Final = 2**53
_REASONS: Final = tuple(ExitReason)
_REASON_CODES: Final = {reason: code for code, reason in enumerate(_REASONS)}

_RUNNING, _ANSWERED, _FAILED = range(3)


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """What is asked for one image."""

    model_index: int
    limits: ExitLimits
    arrived_at: float
    due_at: float
    reservation: int | None


class Slots:
    """Views of a block of memory as slots; both processes make their own.

    Who may write is settled by the frames that pass between them: a slot is the front end's until
    SUBMIT, the engine's until SETTLED.

    Args:
        block: At least as large as `size_bytes` says.
        form: Of every slot.
        num_slots: How many there are.
    """

    def __init__(self, block: SharedBlock, form: SlotForm, num_slots: int) -> None:
        offsets = _Offsets(form, num_slots)
        if block.size_bytes < offsets.end:
            raise ValueError(f"{block.size_bytes} bytes are too few for {num_slots} slots")
        self.form = form
        self.num_slots = num_slots
        self._buffer = block.buffer
        self._offsets = offsets
        shape = (num_slots, form.num_exits)
        self._exits = np.ndarray(shape, np.uint8, block.buffer, offsets.exits)
        self._confidences = np.ndarray(shape, np.float64, block.buffer, offsets.confidences)
        self._logits = np.ndarray(
            (*shape, form.num_classes), np.float32, block.buffer, offsets.logits
        )
        self.pixels = np.ndarray(
            (num_slots, form.num_values), np.float32, block.buffer, offsets.pixels
        )

    @classmethod
    def create(cls, form: SlotForm, num_slots: int) -> tuple[Self, SharedBlock]:
        """Return new slots, and the block they lie in."""
        block = SharedBlock.create(_Offsets(form, num_slots).end)
        return cls(block, form, num_slots), block

    def put_request(self, slot: int, request: SlotRequest) -> None:
        """Write down what is asked, and that nothing came of it yet."""
        limits = request.limits
        _OUTCOME.pack_into(
            self._buffer, self._offsets.outcomes + slot * _OUTCOME.size, *_NOTHING_YET
        )
        _REQUEST.pack_into(
            self._buffer,
            self._offsets.requests + slot * _REQUEST.size,
            request.model_index,
            limits.min_exit,
            limits.max_exit,
            _EVERY_CLASSIFIER if limits.every_classifier else 0,
            0 if request.reservation is None else request.reservation,
            0,
            math.nan if limits.deadline_at is None else limits.deadline_at,
            math.nan if limits.budget_macs is None else min(limits.budget_macs, _MAX_MACS),
            math.nan if limits.min_confidence is None else limits.min_confidence,
            request.arrived_at,
            request.due_at,
        )

    def request(self, slot: int) -> SlotRequest:
        """Read what is asked."""
        (
            model_index,
            min_exit,
            max_exit,
            flags,
            reservation,
            _,
            deadline_at,
            budget_macs,
            min_confidence,
            arrived_at,
            due_at,
        ) = _REQUEST.unpack_from(self._buffer, self._offsets.requests + slot * _REQUEST.size)
        limits = ExitLimits(
            deadline_at=_given(deadline_at),
            budget_macs=None if math.isnan(budget_macs) else round(budget_macs),
            min_confidence=_given(min_confidence),
            min_exit=min_exit,
            max_exit=max_exit,
            every_classifier=bool(flags & _EVERY_CLASSIFIER),
        )
        return SlotRequest(model_index, limits, arrived_at, due_at, reservation or None)

    def add_record(self, slot: int, record: ExitRecord) -> None:
        """Write down what the next classifier said that looked at the image.

        How many there are counts up last, so that the other side reads no half of a record however
        this process ends.
        """
        count_at = self._offsets.outcomes + slot * _OUTCOME.size + _NUM_RECORDS_OFFSET
        (position,) = _NUM_RECORDS.unpack_from(self._buffer, count_at)
        self._exits[slot, position] = record.exit_index
        self._confidences[slot, position] = record.confidence
        self._logits[slot, position, : len(record.logits)] = record.logits
        _NUM_RECORDS.pack_into(self._buffer, count_at, position + 1)

    def put_outcome(self, slot: int, outcome: ImageOutcome) -> None:
        """Write down how an image ended; records that were added on the way are there already."""
        at = self._offsets.outcomes + slot * _OUTCOME.size
        times = (outcome.spent_macs, outcome.compute_s, outcome.compute_share_s)
        if outcome.answer is not None:
            passed = outcome.answer.passed
            (num_added,) = _NUM_RECORDS.unpack_from(self._buffer, at + _NUM_RECORDS_OFFSET)
            for record in passed[num_added:]:
                self.add_record(slot, record)
            reason = _REASON_CODES[outcome.answer.reason]
            head = (_ANSWERED, len(passed), reason, 0)
            _OUTCOME.pack_into(self._buffer, at, *head, *times, 0.0, b"")
            return
        if outcome.error is None:
            raise ValueError("an image was settled with neither an answer nor an error")
        written = write_error(outcome.error)
        message = written.message.encode()[:_MESSAGE_BYTES]
        head = (_FAILED, 0, 0, written.code)
        _OUTCOME.pack_into(self._buffer, at, *head, *times, written.number, message)

    def outcome(self, slot: int, num_classes: int) -> ImageOutcome:
        """Read how an image ended."""
        state, num_records, reason, code, *times, number, message = _OUTCOME.unpack_from(
            self._buffer, self._offsets.outcomes + slot * _OUTCOME.size
        )
        if state == _ANSWERED:
            passed = self._records(slot, num_records, num_classes)
            answer = Answer(passed[-1], _REASONS[reason], passed)
            return ImageOutcome(answer, None, *times)
        text = message.rstrip(b"\0").decode(errors="replace")
        return ImageOutcome(None, read_error(WrittenError(code, number, text)), *times)

    def lost_outcome(self, slot: int, num_classes: int, *, mandatory_exit: int) -> ImageOutcome:
        """Return how an image ends whose engine is gone: what it had so far, or nothing."""
        head = _OUTCOME.unpack_from(self._buffer, self._offsets.outcomes + slot * _OUTCOME.size)
        state, num_records, *_ = head
        if state != _RUNNING:
            return self.outcome(slot, num_classes)
        passed = self._records(slot, num_records, num_classes)
        if passed and passed[-1].exit_index >= mandatory_exit:
            answer = Answer(passed[-1], ExitReason.FAILED, passed)
            return ImageOutcome(answer, None, 0, 0.0, 0.0)
        return ImageOutcome(None, ReplicaLost(), 0, 0.0, 0.0)

    def inputs(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return one image's pixels as stage 0 reads them, ``(1, *shape)``, where they lie."""
        return self.pixels[slot, : math.prod(shape)].reshape(1, *shape)

    def _records(self, slot: int, num_records: int, num_classes: int) -> tuple[ExitRecord, ...]:
        # A copy, since the slot will be another's.
        logits = self._logits[slot, :num_records, :num_classes].copy()
        exits = self._exits[slot, :num_records].tolist()
        confidences = self._confidences[slot, :num_records].tolist()
        return tuple(map(ExitRecord, exits, logits, confidences))


class _Offsets:
    """Where the parts of some slots begin."""

    def __init__(self, form: SlotForm, num_slots: int) -> None:
        num_records = num_slots * form.num_exits
        sizes = (
            num_slots * _REQUEST.size,
            num_slots * _OUTCOME.size,
            num_records,
            num_records * np.dtype(np.float64).itemsize,
            num_records * form.num_classes * np.dtype(np.float32).itemsize,
            num_slots * form.num_values * np.dtype(np.float32).itemsize,
        )
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
        self.requests, self.outcomes, self.exits, self.confidences, self.logits, self.pixels = (
            starts[:-1]
        )
        self.end = starts[-1]


_NOTHING_YET: Final = (_RUNNING, 0, 0, 0, 0, 0.0, 0.0, 0.0, b"")


def _given(value: float) -> float | None:
    return None if math.isnan(value) else value
