"""One answer of ``/classify``, written down from pieces that are the same for every request.

`json` spends 25 µs on it; joining what is known beforehand with the few numbers that are not takes
5. What it writes is `schemas.ClassifyResponse`; tests read it back.
"""

from typing import Final

from service.api.answers import AnswerForm, ModelWords, milliseconds, model_json, passed_json
from service.api.encoding import encode_json
from service.api.ranking import rank_record
from service.backends.base import ModelKey
from service.commands import Classified, DeadlineReport

# One formatting of all numbers takes a third of as many `round` and `repr`.
_TAIL: Final = (
    ',"exit":{"index":%d,"count":%d,"reason":"%s"}%s'
    ',"cost":{"macs":%d,"flops":%d,"share_of_full":%.6f},"deadline":%s'
    ',"timing_ms":{"total":%.4f,"receive":%.4f,"decode":%.4f,"queue":%.4f,"compute":%.4f}}'
)
_DEADLINE: Final = '{"requested_ms":%.4f,"met":%s,"remaining_ms":%.4f}'


class _ModelPieces:
    """What of an answer depends on the model alone, as JSON."""

    __slots__ = ("before_confidence", "num_exits", "opening", "words")

    def __init__(self, key: ModelKey, words: ModelWords) -> None:
        self.words = words
        self.opening = f'{{"model":{encode_json(model_json(key))},"prediction":'
        self.before_confidence = [
            f'{{"index":{index},"label":{encode_json(label)},"confidence":'
            for index, label in enumerate(words.labels)
        ]
        self.num_exits = len(words.cumulative_macs)


class AnswerWriter:
    """Writes answers down, and remembers the pieces of each model's."""

    def __init__(self) -> None:
        self._pieces_by_model: dict[ModelKey, _ModelPieces] = {}

    def write(self, done: Classified, form: AnswerForm) -> bytes:
        """Return the answer for one image as `ClassifyResponse` describes it."""
        pieces = self._pieces_by_model.get(done.model)
        if pieces is None or pieces.words.labels is not done.labels:
            pieces = self._learn(done)
        record, macs, timing = done.answer.record, done.spent_macs, done.timing
        ranking = rank_record(record, done.temperatures[record.exit_index], max(1, form.top_k))
        before = pieces.before_confidence
        likely = [
            f"{before[index]}{confidence!r}}}"
            for index, confidence in zip(ranking.indices, ranking.confidences, strict=True)
        ]
        answer = f'{likely[0]},"top_k":[{",".join(likely)}]' if form.top_k else likely[0]
        tail = _TAIL % (
            record.exit_index,
            pieces.num_exits,
            done.answer.reason.value,
            _exits_json(done, pieces.words) if form.detail else "",
            macs,
            2 * macs,
            macs / pieces.words.cumulative_macs[-1],
            "null" if done.deadline is None else _deadline_json(done.deadline),
            1000 * timing.total_s,
            1000 * timing.receive_s,
            1000 * timing.decode_s,
            1000 * timing.queue_s,
            1000 * timing.compute_s,
        )
        return f"{pieces.opening}{answer}{tail}".encode()

    def _learn(self, done: Classified) -> _ModelPieces:
        words = ModelWords(done.labels, done.temperatures, done.costs.cumulative_macs)
        pieces = _ModelPieces(done.model, words)
        self._pieces_by_model[done.model] = pieces
        return pieces


def _exits_json(done: Classified, words: ModelWords) -> str:
    return f',"exits":{encode_json(passed_json([done.answer], words)[0])}'


def _deadline_json(report: DeadlineReport) -> str:
    # Judged on the number that is told: the two must never disagree.
    remaining_ms = milliseconds(report.remaining_s)
    met = "true" if remaining_ms >= 0 else "false"
    return _DEADLINE % (1000 * report.requested_s, met, remaining_ms)
