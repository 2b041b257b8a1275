"""Server-sent events out of bytes, as they come from the network."""

from __future__ import annotations

from typing import NamedTuple

EVENT_BYTES = 16 * 1024 * 1024
"""The most that one event may hold; a server that sends more is not read further."""

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One event: `data` with its lines joined, `event` its name, empty where it has none."""

    event: bytes
    data: bytes


class EventTooLargeError(ValueError):
    """An event grew beyond EVENT_BYTES. The parser must not be fed further."""


class SseParser:
    """An incremental parser of one stream: bytes go in, whole events come out.

    The stream may be cut anywhere, within a line end or a character too. Line ends are LF, CRLF or CR.
    Comments, `id` and `retry` are passed over, and so is an event that the end of the stream leaves
    unfinished.
    """

    __slots__ = ("_after_cr", "_at_start", "_data", "_event", "_line", "_size")

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line whose end has not come
        self._data: list[bytes] = []
        self._event = b""
        self._size = 0  # of the two lists together
        self._after_cr = False  # a LF now is the second half of a CRLF
        self._at_start = True  # a byte order mark may stand here

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that end within `chunk`, in order. Raises EventTooLargeError."""
        if self._at_start and chunk:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        events: list[ServerSentEvent] = []
        for line in lines:
            if self._line:
                line = b"".join((*self._line, line))
                self._line.clear()
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._size += len(line)
            elif not line:
                if self._data:
                    joined = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    events.append(ServerSentEvent(self._event, joined))
                    self._data.clear()
                self._event = b""
                self._size = 0
            elif line.startswith(b"event:"):
                self._event = line[6:].removeprefix(b" ")
            elif line == b"data":
                self._data.append(b"")
        if rest:
            self._line.append(rest)
            self._size += len(rest)
        if self._size > EVENT_BYTES:
            raise EventTooLargeError(f"a server-sent event is larger than {EVENT_BYTES} bytes")
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        start = b"".join((*self._line, chunk))
        self._line.clear()
        self._size = 0
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._line.append(start)
            return b""
        self._at_start = False
        return start.removeprefix(_BOM)
