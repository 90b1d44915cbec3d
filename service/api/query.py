"""Query strings, read so that no typo passes: a deadline misspelt must not run to full depth."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import InvalidParameter

_INTEGER = re.compile(r"[0-9]{1,4000}")  # above that Python itself refuses to read one
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_SHOWN_CHARACTERS: Final = 64

QueryT = TypeVar("QueryT", bound=BaseModel)


def digits(text: object) -> object:
    """Read a non-negative integer written with decimal digits alone.

    Raises:
        ValueError: It is anything else, also what Python would take: ``1_000``, ``+1``, ``1.0``.
    """
    if not isinstance(text, str):
        return text
    if not _INTEGER.fullmatch(text):
        raise ValueError("must be a non-negative integer")
    return int(text)


def decimal(text: object) -> object:
    """Read a non-negative number in decimal notation.

    Raises:
        ValueError: It is anything else: negative, infinite, not a number.
    """
    if not isinstance(text, str):
        return text
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a non-negative number")
    return float(text)


def parse_query(items: Iterable[tuple[str, str]], model: type[QueryT]) -> QueryT:
    """Return a query as its typed form.

    Args:
        items: Names and values as sent, decoded, in order.
        model: Its fields are the known parameters.

    Raises:
        InvalidParameter: One is unknown, repeated, out of range, or contradicts another.
    """
    known = tuple(model.model_fields)
    values: dict[str, str] = {}
    for name, value in items:
        if name not in known:
            raise unknown_parameter(name, known)
        if name in values:
            raise InvalidParameter(f"{name} is given more than once", parameter=name)
        values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        raise _explained(invalid, values) from None


def unknown_parameter(name: str, known: Sequence[str]) -> InvalidParameter:
    """Return the error for a name that is not known, with the known one most like it."""
    shown = shorten(name)
    # All names here are lower case: DEADLINE_MS has no letter in common with deadline_ms.
    alike = difflib.get_close_matches(shown.lower(), known, n=1, cutoff=0.0)
    nearest = next(iter(alike), None)
    hint = "none is known here" if nearest is None else f"the nearest known one is {nearest!r}"
    return InvalidParameter(
        f"there is no parameter {shown!r}; {hint}", parameter=shown, nearest=nearest
    )


def shorten(text: str) -> str:
    """Return text that a caller sent, short enough to be quoted back."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _explained(invalid: ValidationError, values: dict[str, str]) -> InvalidParameter:
    error = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        # A contradiction, found by the model as a whole: its message begins with the parameter.
        return InvalidParameter(reason, parameter=reason.partition(" ")[0])
    name = str(error["loc"][0])
    if name not in values:
        return InvalidParameter(f"{name} is missing", parameter=name)
    return InvalidParameter(f"{name}={shorten(values[name])!r}: {reason}", parameter=name)
