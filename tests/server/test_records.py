"""Records as bytes: what is encoded in steps is what is encoded at once, and no step is long."""

from __future__ import annotations

from time import thread_time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.server.records import (
    decode_value,
    decoding_checkpoint,
    encode_value,
    encoding_checkpoint,
    encoding_message,
)
from holdfast.server.registry.compaction import finished
from tests.protocol.wire import json_values, texts

maps = st.dictionaries(texts, json_values, max_size=4)


@settings(max_examples=60)
@given(maps)
def test_a_checkpoint_comes_back(checkpoint: dict[str, Any]) -> None:
    """Encoded in steps or at once, it is decoded to what it was."""
    assert finished(decoding_checkpoint(finished(encoding_checkpoint(checkpoint)))) == checkpoint
    assert finished(decoding_checkpoint(encode_value(checkpoint))) == checkpoint


@settings(max_examples=60)
@given(maps)
def test_a_message_is_encoded_as_any_value(message: dict[str, Any]) -> None:
    """In steps it makes the same bytes."""
    assert finished(encoding_message(message)) == encode_value(message)


def test_a_long_text_is_encoded_in_pieces() -> None:
    """Of several bytes a code point too, and no step takes long."""
    text = "a😀é漢" * 600_000
    steps = encoding_message({"id": "a", "parts": [{"kind": "text", "text": text}, {"kind": "text", "text": "b"}]})
    longest, count, payload = 0.0, 0, b""
    while not payload:
        began = thread_time()
        try:
            next(steps)
        except StopIteration as end:
            payload = end.value
        longest, count = max(longest, thread_time() - began), count + 1
    assert decode_value(payload)["parts"][0]["text"] == text
    assert count > 9
    assert longest < 0.05
