"""Split a multipart body (RFC 7578) that is in memory. The framework's parser would write large parts to the disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MAX_HEADERS = 4096  # bytes before the content of a part


@dataclass(slots=True)
class _Part:
    """A part while it is read: its header lines as they arrive, and its content."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    header_bytes: int = 0
    content: bytearray = field(default_factory=bytearray)


def split_multipart(body: bytes, content_type: str, *, max_parts: int) -> list[tuple[str, bool, bytes]]:
    """Split a body into its parts.

    Args:
        body: the whole body.
        content_type: the header that holds the boundary.
        max_parts: more parts are refused.
    Returns:
        Name, whether it is a file, and content of each complete part.
    Raises:
        ValueError: the body does not have this form, is not complete, or has too many parts.
    """
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise ValueError("the Content-Type has no boundary")
    reader = _Reader(max_parts)
    callbacks = {
        "on_part_begin": reader.begin,
        "on_header_field": reader.header_name,
        "on_header_value": reader.header_value,
        "on_header_end": reader.header_end,
        "on_part_data": reader.data,
        "on_part_end": reader.end_part,
        "on_end": reader.end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as err:
        raise ValueError(str(err)) from err
    if not reader.is_complete:
        raise ValueError("the body ends before its last boundary")
    return reader.parts


class _Reader:
    """Collects the parts that a parser finds.

    Attributes:
        parts: name, whether it is a file, and content of each part so far.
        is_complete: whether the last boundary was read.
    """

    def __init__(self, max_parts: int) -> None:
        self.parts: list[tuple[str, bool, bytes]] = []
        self.is_complete = False
        self._max_parts = max_parts
        self._part = _Part()

    def begin(self) -> None:
        if len(self.parts) >= self._max_parts:
            raise ValueError(f"the body has more than {self._max_parts} parts")
        self._part = _Part()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._part.name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._part.value += data[start:end]

    def header_end(self) -> None:
        part = self._part
        part.headers[bytes(part.name).lower()] = bytes(part.value)
        part.name, part.value = bytearray(), bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        self._part.content += memoryview(data)[start:end]

    def end_part(self) -> None:
        disposition = self._part.headers.get(b"content-disposition", b"")
        kind, parameters = parse_options_header(disposition)
        name = parameters.get(b"name")
        if kind != b"form-data" or name is None:
            raise ValueError("a part has no name")
        self.parts.append((name.decode("utf-8", "replace"), b"filename" in parameters, bytes(self._part.content)))

    def end(self) -> None:
        self.is_complete = True

    def _count(self, size: int) -> None:
        self._part.header_bytes += size
        if self._part.header_bytes > _MAX_HEADERS:
            raise ValueError(f"the headers of a part have more than {_MAX_HEADERS} bytes")
