"""Records as bytes: what is encoded in steps is what is encoded at once, and no step is long."""

from __future__ import annotations

from collections.abc import Generator
from time import thread_time
from typing import Any, TypeVar, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.protocol.codec import MSGPACK_CODEC
from holdfast.protocol.events import Event, Message
from holdfast.server.registry import Note, Record
from holdfast.server.registry.checkpoint import finished
from holdfast.server.session.paging import whole
from holdfast.server.session.records import (
    MessageReader,
    decode_batch,
    decoding_checkpoint,
    encode_batch,
    encode_value,
    encoding_checkpoint,
    encoding_message,
)
from tests.support.strategies import json_values, texts

_T = TypeVar("_T")
maps = st.dictionaries(texts, json_values, max_size=4)


@settings(max_examples=60)
@given(maps)
def test_a_checkpoint_comes_back(checkpoint: dict[str, Any]) -> None:
    """Encoded in steps or at once, it is decoded to what it was."""
    assert finished(decoding_checkpoint(finished(encoding_checkpoint(checkpoint)))) == checkpoint
    assert finished(decoding_checkpoint(encode_value(checkpoint))) == checkpoint


def _event(seq: int) -> Event:
    event = {"type": "run.chunk", "seq": seq, "at": 1, "runId": "r", "part": 0, "kind": "text", "delta": "x"}
    return cast("Event", event)


def _batch(records: list[Record]) -> bytes:
    return encode_batch(records, [MSGPACK_CODEC.encode(record.event) for record in records])


@given(st.lists(st.booleans(), min_size=1, max_size=5))
def test_a_batch_comes_back(noted: list[bool]) -> None:
    """Of one event or of several, each with its note where it has one."""
    note = cast("Note", {"terms": {"acceptedAt": 1}})
    records = [Record(_event(seq), note if has_one else None) for seq, has_one in enumerate(noted, 1)]
    assert decode_batch(_batch(records)) == records


def _message(*texts: str) -> Message:
    return {
        "id": "a",
        "role": "assistant",
        "parts": [{"kind": "text", "text": text} for text in texts],
        "at": 1,
        "seq": 1,
        "after": None,
        "status": "complete",
    }


@settings(max_examples=60)
@given(maps)
def test_a_short_message_is_encoded_as_any_value(fields: dict[str, Any]) -> None:
    """It makes the same bytes, whatever it holds."""
    message = cast("Message", {**_message("x"), "metadata": fields})
    assert finished(encoding_message(message)) == encode_value(message)


@given(st.integers(1, 999), st.booleans())
def test_a_message_comes_back(piece: int, before_entries: bool) -> None:
    """Read in pieces of any size, also as it was written before long messages were cut into entries."""
    message = _message("a😀é漢" * 30_000, "b")
    payload = encode_value(message) if before_entries else finished(encoding_message(message))
    reader = MessageReader()
    size = piece * 1_000
    found = [entry for at in range(0, len(payload), size) for entry in reader.feed(payload[at : at + size])]
    assert whole(found) == message
    assert (len(found) == 1) is before_entries


def test_a_long_text_is_encoded_in_pieces() -> None:
    """Of several bytes a code point too, and no step takes long, nor does one of reading it."""
    message = _message("a😀é漢" * 600_000, "b")
    payload, count = _timed(encoding_message(message))
    entries, _ = _timed(_reading(payload))
    assert whole(entries) == message
    assert count == len(entries) > 9


def _reading(payload: bytes) -> Generator[None, None, list[Message]]:
    entries: list[Message] = []
    for entry in MessageReader().feed(payload):
        entries.append(entry)
        yield
    return entries


def _timed(steps: Generator[None, None, _T]) -> tuple[_T, int]:
    count = 0
    while True:
        began = thread_time()
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        finally:
            assert thread_time() - began < 0.05
        count += 1
