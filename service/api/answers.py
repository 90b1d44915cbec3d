"""Answers written down: seconds become milliseconds, MACs are also told as FLOPs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from service.api.ranking import Ranking, rank_records
from service.backends.base import ModelKey
from service.commands import DeadlineReport, Timing
from service.engine.request import Answer, ExitRecord

JsonObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelWords:
    """What of a model is needed to write its answers down."""

    labels: tuple[str, ...]
    temperatures: tuple[float, ...]
    cumulative_macs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What a caller wants to be told of each image."""

    top_k: int  # 0: no list
    detail: bool


def answers_json(
    answers: Sequence[Answer], words: ModelWords, form: AnswerForm
) -> list[JsonObject]:
    """Return prediction, list of classes, exit and, if wanted, all exits of each answer."""
    rankings = rank_records(
        [answer.record for answer in answers], words.temperatures, max(1, form.top_k)
    )
    written = [
        _answer_json(answer, ranking, words, form)
        for answer, ranking in zip(answers, rankings, strict=True)
    ]
    if form.detail:
        for document, passed in zip(written, passed_json(answers, words), strict=True):
            document["exits"] = passed
    return written


def _answer_json(
    answer: Answer, ranking: Ranking, words: ModelWords, form: AnswerForm
) -> JsonObject:
    labels = words.labels
    likely = [
        {"index": index, "label": labels[index], "confidence": confidence}
        for index, confidence in zip(ranking.indices, ranking.confidences, strict=True)
    ]
    document: JsonObject = {"prediction": likely[0]}
    if form.top_k:
        document["top_k"] = likely
    document["exit"] = {
        "index": answer.record.exit_index,
        "count": len(words.cumulative_macs),
        "reason": answer.reason.value,
    }
    return document


def passed_json(answers: Sequence[Answer], words: ModelWords) -> list[list[JsonObject]]:
    """Return what every exit on the way said, for each answer."""
    records: list[ExitRecord] = [record for answer in answers for record in answer.passed]
    rankings = iter(rank_records(records, words.temperatures, 1))
    return [
        [
            {
                "index": record.exit_index,
                "prediction": _top_json(next(rankings), words),
                "macs": words.cumulative_macs[record.exit_index],
            }
            for record in answer.passed
        ]
        for answer in answers
    ]


def _top_json(ranking: Ranking, words: ModelWords) -> JsonObject:
    index = ranking.indices[0]
    return {"index": index, "label": words.labels[index], "confidence": ranking.confidences[0]}


def model_json(key: ModelKey) -> JsonObject:
    """Return which model answered."""
    return {"name": key.name, "version": key.version}


def cost_json(macs: int, words: ModelWords) -> JsonObject:
    """Return what was executed, in both units and as a share of full depth."""
    return {"macs": macs, "flops": 2 * macs, "share_of_full": share_of_full(macs, words)}


def share_of_full(macs: int, words: ModelWords) -> float:
    """Return what was executed as a share of full depth with every classifier."""
    return round(macs / words.cumulative_macs[-1], 6)


def deadline_json(report: DeadlineReport | None) -> JsonObject | None:
    """Return how a deadline turned out."""
    if report is None:
        return None
    remaining_ms = milliseconds(report.remaining_s)
    # Judged on the number that is told: the two must never disagree.
    return {
        "requested_ms": milliseconds(report.requested_s),
        "met": remaining_ms >= 0,
        "remaining_ms": remaining_ms,
    }


def timing_json(timing: Timing) -> JsonObject:
    """Return where the time went."""
    return {
        "total": milliseconds(timing.total_s),
        "receive": milliseconds(timing.receive_s),
        "decode": milliseconds(timing.decode_s),
        "queue": milliseconds(timing.queue_s),
        "compute": milliseconds(timing.compute_s),
    }


def milliseconds(seconds: float) -> float:
    """Return seconds in milliseconds, to a tenth of a microsecond, and never as -0."""
    return round(1000 * seconds, 4) + 0.0
