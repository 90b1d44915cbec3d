"""Which bodies a route takes, judged by the header alone, before any of the body is read."""

from enum import Enum
from typing import Final

from service.errors import UnsupportedMediaType
from service.uploads import BATCH_MEDIA_TYPES, IMAGE_MEDIA_TYPES

# What clients send that were not told what they send; the last is curl's own default.
_UNTOLD: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
_FORM: Final = "multipart/form-data"
_ARRAY: Final = "application/x-npy"
_ARCHIVES: Final = frozenset(
    {"application/zip", "application/x-zip-compressed", "application/x-tar"}
)
# Told apart without being taken apart: nearly all requests have one of these.
_USUAL: Final = frozenset(
    {None, b"application/octet-stream", b"application/x-npy", b"image/jpeg", b"image/png"}
)


class BodyForm(Enum):
    """How a body is to be read."""

    FORM = "form"  # multipart, part by part
    WHOLE = "whole"  # what it is, its bytes and its type say together


def image_form(content_type: bytes | None) -> BodyForm:
    """Return how the body of one image is read.

    Raises:
        UnsupportedMediaType: The type cannot hold an image.
    """
    if content_type in _USUAL:
        return BodyForm.WHOLE
    media_type = _media_type(content_type)
    if media_type == _FORM:
        return BodyForm.FORM
    if media_type in _UNTOLD | {_ARRAY} or media_type.startswith("image/"):
        return BodyForm.WHOLE
    raise UnsupportedMediaType(media_type, accepted=IMAGE_MEDIA_TYPES)


def batch_form(content_type: bytes | None) -> BodyForm:
    """Return how the body of a batch is read.

    Raises:
        UnsupportedMediaType: The type cannot hold many images.
    """
    media_type = _media_type(content_type)
    if media_type == _FORM:
        return BodyForm.FORM
    if media_type in _UNTOLD | _ARCHIVES | {_ARRAY}:
        return BodyForm.WHOLE
    raise UnsupportedMediaType(media_type, accepted=BATCH_MEDIA_TYPES)


def text_of(content_type: bytes | None) -> str | None:
    """Return a header as text; one that is not there stays so."""
    return None if content_type is None else content_type.decode("latin-1")


def _media_type(content_type: bytes | None) -> str:
    return (text_of(content_type) or "").partition(";")[0].strip().lower()
