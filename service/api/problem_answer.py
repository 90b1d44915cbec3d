"""One problem, written down from pieces that are the same for every request.

A server that is asked for more than it can do mostly refuses: what that costs is taken from those
it answers. What is written is `Problem.as_json`; tests read it back.
"""

from math import isfinite
from typing import Final

from pydantic import JsonValue

from service.api.encoding import encode_json
from service.api.problems import ALL_KINDS, Problem, ceil_ms

# Up to what depends on the request: the detail.
_OPENING_BY_SLUG: Final = {
    kind.slug: encode_json(Problem(kind, "").as_json()).removesuffix('""}') for kind in ALL_KINDS
}


def write_problem(problem: Problem) -> bytes:
    """Return a problem document as JSON."""
    rest = "}"
    if problem.retry_after_s is not None:
        rest = f',"retry_after_ms":{ceil_ms(problem.retry_after_s)!r}}}'
    if problem.numbers:
        numbers = [f',"{name}":{_written(value)}' for name, value in problem.numbers.items()]
        rest = "".join([*numbers, rest])
    return f"{_OPENING_BY_SLUG[problem.kind.slug]}{encode_json(problem.detail)}{rest}".encode()


def _written(value: JsonValue) -> str:
    if isinstance(value, float) and isfinite(value):
        return repr(value)  # as the encoder does, which takes 2 µs to come to it
    return encode_json(value)
