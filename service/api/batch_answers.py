"""Batches written down piece by piece: ten thousand answers at once would stop the event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from starlette.responses import Response, StreamingResponse

from service.api.answers import (
    AnswerForm,
    JsonObject,
    ModelWords,
    answers_json,
    cost_json,
    deadline_json,
    model_json,
    timing_json,
)
from service.api.budget_answers import budget_json
from service.api.encoding import encode_json
from service.api.problems import problem_of
from service.commands import BatchDone, BatchImage

_MEDIA_TYPE: Final = "application/json"
_PIECE_OBJECTS: Final = 1024  # JSON objects written in one go, about two milliseconds
_OBJECTS_PER_IMAGE: Final = 6  # besides those of its classes and exits


def batch_response(done: BatchDone, form: AnswerForm) -> Response:
    """Return the answers for a batch as `BatchResponse` describes them.

    What is more than one piece is written in another thread and sent as it comes.
    """
    if len(done.images) <= images_per_piece(done, form):
        return Response("".join(batch_pieces(done, form)), media_type=_MEDIA_TYPE)
    return StreamingResponse(_off_the_loop(batch_pieces(done, form)), media_type=_MEDIA_TYPE)


def images_per_piece(done: BatchDone, form: AnswerForm) -> int:
    """Return how many images are written in one go; fewer, the more is told of each."""
    num_exits = done.costs.num_exits if form.detail else 0
    num_classes = min(form.top_k, len(done.labels))
    return max(1, _PIECE_OBJECTS // (_OBJECTS_PER_IMAGE + num_classes + 2 * num_exits))


def batch_pieces(done: BatchDone, form: AnswerForm) -> Iterator[str]:
    """Yield the text of a batch's answers; nothing of a piece is worked out before it is due."""
    head = encode_json(
        {
            "model": model_json(done.model),
            "budget": budget_json(done.budget),
            "deadline": deadline_json(done.deadline),
            "skipped": done.skipped,
            "timing_ms": timing_json(done.timing),
        }
    )
    yield f'{head[:-1]},"results":['
    words = ModelWords(done.labels, done.temperatures, done.costs.cumulative_macs)
    step = images_per_piece(done, form)
    for start in range(0, len(done.images), step):
        written = _images_json(done.images[start : start + step], words, form)
        # An array without its brackets is the inside of a larger one.
        yield ("," if start else "") + encode_json(written)[1:-1]
    yield "]}"


def _images_json(
    images: Sequence[BatchImage], words: ModelWords, form: AnswerForm
) -> list[JsonObject]:
    answers = [image.answer for image in images if image.answer is not None]
    written = iter(answers_json(answers, words, form))
    results: list[JsonObject] = []
    for image in images:
        result: JsonObject = {"index": image.index}
        if image.filename is not None:
            result["filename"] = image.filename
        if image.answer is not None:
            result.update(next(written))
        result["cost"] = cost_json(image.spent_macs, words)
        if image.error is not None:
            result["error"] = problem_of(image.error).as_json()
        results.append(result)
    return results


async def _off_the_loop(pieces: Iterator[str]) -> AsyncIterator[str]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
