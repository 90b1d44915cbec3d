"""Forms, taken apart as they arrive: nothing is spooled to files, and too much is seen early."""

from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequest, InvalidParameter, PayloadTooLarge

_DISPOSITION: Final = b"content-disposition"


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a form."""

    filename: str | None  # as the client named it
    data: bytes


class FormFiles:
    """Collects the parts of one name from a form; a `BodySink`.

    Args:
        content_type: The request's, with the boundary.
        field: The one name that parts may have.
        max_parts: Most of them.

    Raises:
        BadRequest: There is no usable boundary.
    """

    def __init__(self, content_type: str, *, field: str, max_parts: int) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise BadRequest("multipart/form-data without a boundary")
        self._field = field
        self._max_parts = max_parts
        self._parts: list[FilePart] = []
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._chunks: list[bytes] = []
        self._is_complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._extend_name,
                    "on_header_value": self._extend_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._check_name,
                    "on_part_data": self._extend_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as malformed:
            raise BadRequest(f"malformed multipart body: {malformed}") from malformed

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body in.

        Raises:
            BadRequest: They are no form.
            InvalidParameter: A part has another name, or there may be only one.
            PayloadTooLarge: There are too many parts.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as malformed:
            raise BadRequest(f"malformed multipart body: {malformed}") from malformed

    def finish(self) -> tuple[FilePart, ...]:
        """Return the parts, in order.

        Raises:
            BadRequest: The form breaks off, or there is none.
        """
        if not self._is_complete:
            raise BadRequest("the multipart body breaks off")
        if not self._parts:
            raise BadRequest(f"there is no part {self._field!r} in the form")
        return tuple(self._parts)

    def _begin_part(self) -> None:
        self._headers = {}
        self._chunks = []

    def _extend_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _extend_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _check_name(self) -> None:
        name = _text(parse_options_header(self._headers.get(_DISPOSITION))[1].get(b"name"))
        if name != self._field:
            raise InvalidParameter(
                f"a part is named {(name or '')[:64]!r}; the only one read here is {self._field!r}",
                parameter=(name or "")[:64],
                nearest=self._field,
            )
        if len(self._parts) < self._max_parts:
            return
        if self._max_parts == 1:
            raise InvalidParameter(f"the form has more than one {name!r}", parameter=name)
        raise PayloadTooLarge("the form", limit=self._max_parts, unit="images")

    def _extend_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def _end_part(self) -> None:
        options = parse_options_header(self._headers.get(_DISPOSITION))[1]
        self._parts.append(
            FilePart(
                filename=_text(options.get(b"filename")),
                data=b"".join(self._chunks),
            )
        )
        self._chunks = []

    def _end(self) -> None:
        self._is_complete = True


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")
