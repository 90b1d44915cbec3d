"""What a query string of ``/classify`` asks for, read once for all requests that ask the same."""

from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from service.api.answers import AnswerForm
from service.api.parameters import ClassifyQuery
from service.api.query import parse_query

_QUERIES_KEPT: Final = 1024
_LONGEST_KEPT: Final = 256  # bytes; what is longer is not worth a place


class ClassifyAsked(NamedTuple):
    """What a query string asks for."""

    model: str | None
    deadline_s: float | None
    budget_macs: int | None
    min_confidence: float | None
    min_exit: int
    max_exit: int | None
    form: AnswerForm


def read_classify_query(query: bytes) -> ClassifyAsked:
    """Return what a query string asks for.

    Raises:
        InvalidParameter: One is unknown, repeated, out of range, or contradicts another.
    """
    return _read_again(query) if len(query) <= _LONGEST_KEPT else _read(query)


def names_deadline(query: bytes) -> bool:
    """Say whether a query string names a deadline, whatever else is wrong with it."""
    return _names_deadline_again(query) if len(query) <= _LONGEST_KEPT else _names_deadline(query)


def _names_deadline(query: bytes) -> bool:
    return any(name == "deadline_ms" for name, _ in _items(query))


def _read(query: bytes) -> ClassifyAsked:
    asked = parse_query(_items(query), ClassifyQuery)
    return ClassifyAsked(
        model=asked.model,
        deadline_s=None if asked.deadline_ms is None else asked.deadline_ms / 1000,
        budget_macs=asked.macs,
        min_confidence=asked.min_confidence,
        min_exit=asked.min_exit,
        max_exit=asked.max_exit,
        form=AnswerForm(top_k=asked.top_k, detail=asked.detail is not None),
    )


def _items(query: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True)


# Clients ask with the same query over and over, and reading one takes 20 µs.
_read_again = lru_cache(_QUERIES_KEPT)(_read)
_names_deadline_again = lru_cache(_QUERIES_KEPT)(_names_deadline)
