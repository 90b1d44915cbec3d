"""Bytes to manifest, by refusing whatever two readers of JSON could understand differently."""

import json
from math import isfinite
from pathlib import Path
from typing import Final, NoReturn

from pydantic import JsonValue, ValidationError

from model_store.errors import FormatUnknown, ManifestInvalid
from model_store.layout import FORMAT_VERSION, MANIFEST_FILE, MAX_MANIFEST_BYTES
from model_store.manifest import Manifest

_MAX_PROBLEMS: Final = 5
_MAX_QUOTED: Final = 80  # characters of what was found


def parse_manifest(bundle: Path, raw: bytes) -> Manifest:
    """Return the manifest that a file's content holds.

    Args:
        bundle: Whose manifest it is, for the message.
        raw: The whole file, or more of it than the limit.

    Raises:
        FormatUnknown: It is of another format version.
        ManifestInvalid: It is too large, is not JSON in UTF-8, repeats a key, holds a number that
            is none, or does not fit the schema.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(bundle, MANIFEST_FILE, f"more than {MAX_MANIFEST_BYTES} bytes")
    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(bundle, MANIFEST_FILE, f"not JSON: {error}") from error
    _check_format(bundle, document)
    try:
        return Manifest.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise ManifestInvalid(bundle, MANIFEST_FILE, _summary(error)) from error


def _check_format(bundle: Path, document: JsonValue) -> None:
    if not isinstance(document, dict) or "format_version" not in document:
        raise ManifestInvalid(bundle, MANIFEST_FILE, "expected an object with a format_version")
    found = document["format_version"]
    if type(found) is not int or found != FORMAT_VERSION:  # True == 1 and 1.0 == 1, in Python
        raise FormatUnknown(
            bundle,
            MANIFEST_FILE,
            f"format_version is {_quoted(found)}; this reader knows version {FORMAT_VERSION}",
        )


def _without_repeats(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError(f"a key more than once among {_quoted([key for key, _ in pairs])}")
    return document


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits} is beyond float64")
    return number


def _summary(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False)
    shown = [
        f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}, "
        f"found {_quoted(problem['input'])}"
        for problem in problems[:_MAX_PROBLEMS]
    ]
    if len(problems) > _MAX_PROBLEMS:
        shown.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return "; ".join(shown)


def _quoted(found: object) -> str:
    text = repr(found)
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"
