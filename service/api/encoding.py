"""JSON as it leaves the server: compact, and never with what JSON lacks (NaN, infinity)."""

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

# ASCII: a file name out of an archive may hold halves of characters, which UTF-8 has no form for.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def encode_json(value: object) -> str:
    """Return a value as JSON text."""
    return _ENCODER.encode(value)


def json_response(
    members: Mapping[str, Any],
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a response with one JSON object as its body."""
    body = encode_json(members).encode()
    return Response(body, status_code=status, media_type=media_type, headers=headers)
