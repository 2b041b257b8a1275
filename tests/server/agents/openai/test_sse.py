"""Server-sent events out of bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.server.agents.openai import sse
from holdfast.server.agents.openai.sse import EventTooLargeError, ServerSentEvent, SseParser

STREAM = (
    "\ufeff: a comment\n\n"
    'data: {"text":"grüße 👋"}\n\n'
    "event: error\nid: 7\nretry: 10\ndata: first\ndata:second\ndata\n\n"
    "event: nothing\n\n"
    "data:  two spaces\n\n"
    "unknown: field\ndata: [DONE]\n\n"
    "data: unfinished"
).encode()
EVENTS = [
    ServerSentEvent(b"", '{"text":"grüße 👋"}'.encode()),
    ServerSentEvent(b"error", b"first\nsecond\n"),
    ServerSentEvent(b"", b" two spaces"),
    ServerSentEvent(b"", b"[DONE]"),
]


@given(
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, len(STREAM) * 2), max_size=40),
)
def test_cuts_do_not_matter(line_end: bytes, cuts: list[int]) -> None:
    """However the stream is cut, and whatever ends its lines, the same events come out."""
    stream = STREAM.replace(b"\n", line_end)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    parser = SseParser()
    events = [event for start, end in pairwise(bounds) for event in parser.feed(stream[start:end])]
    assert events == EVENTS


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_byte_by_byte(line_end: bytes) -> None:
    """The finest cut, within characters, line ends and the byte order mark, changes nothing."""
    parser = SseParser()
    stream = STREAM.replace(b"\n", line_end)
    assert [event for byte in stream for event in parser.feed(bytes([byte]))] == EVENTS


def test_event_comes_with_its_last_byte() -> None:
    """An event is not held back until the next one begins, whatever ends its lines."""
    for line_end in (b"\n", b"\r\n", b"\r"):
        parser = SseParser()
        assert parser.feed(b"data: x" + line_end + line_end) == [ServerSentEvent(b"", b"x")]


@pytest.mark.parametrize("piece", [b"x" * 60, b"data: " + b"x" * 60 + b"\n"])
def test_endless_events_are_refused(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    """A line without end and an event without end stop at the bound; many events together do not."""
    monkeypatch.setattr(sse, "EVENT_BYTES", 200)
    parser = SseParser()
    for _ in range(10):
        assert parser.feed(b"data: " + b"x" * 150 + b"\n\n")
    for _ in range(3):
        parser.feed(piece)
    with pytest.raises(EventTooLargeError):
        parser.feed(piece)
