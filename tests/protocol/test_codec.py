"""Both encodings: what goes in comes out, and hostile bytes are malformed and nothing else."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.codec import COMMAND_ITEMS, JSON_CODEC, MSGPACK_CODEC, Codec, negotiate
from holdfast.protocol.errors import MalformedError
from tests.support.strategies import json_values, texts

CODECS: list[Codec] = [JSON_CODEC, MSGPACK_CODEC]
both = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)


def frame_of(codec: Codec, message: Any) -> str | bytes:
    """The message in the frame that it travels in."""
    encoded = codec.encode(message)
    return encoded.decode() if codec.text else encoded


@both
@given(message=st.dictionaries(texts, json_values, max_size=5))
def test_round_trip(codec: Codec, message: dict[str, Any]) -> None:
    """Every value survives its encoding."""
    assert codec.decode(frame_of(codec, message)) == message


@given(st.dictionaries(texts, json_values, max_size=5))
def test_both_say_the_same(message: dict[str, Any]) -> None:
    """A message decodes to the same value from either encoding."""
    decoded = [codec.decode(frame_of(codec, message)) for codec in CODECS]
    assert decoded[0] == decoded[1]


@both
@given(frame=st.binary(max_size=200) | st.text(max_size=200))
def test_hostile_frames(codec: Codec, frame: str | bytes) -> None:
    """Whatever arrives is a value or malformed; no other exception leaves the codec."""
    with contextlib.suppress(MalformedError):
        value = codec.decode(frame, max_items=COMMAND_ITEMS)
        assert codec.decode(frame_of(codec, {"v": value})) == {"v": value}


@given(st.data())
def test_broken_msgpack(data: st.DataObject) -> None:
    """A frame that was cut or had bytes changed is a value or malformed."""
    frame = bytearray(MSGPACK_CODEC.encode({"v": data.draw(json_values)}))
    for _ in range(data.draw(st.integers(0, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    with contextlib.suppress(MalformedError):
        value = MSGPACK_CODEC.decode(broken)
        assert MSGPACK_CODEC.decode(MSGPACK_CODEC.encode({"v": value})) == {"v": value}


@pytest.mark.parametrize(
    "frame",
    ["", "{", '{"a":NaN}', '{"a":Infinity}', '{"a":1e999}', "[" * 100_000, "9" * 5000, '{"a":9007199254740992}'],
)
def test_bad_json(frame: str) -> None:
    """What is not JSON, or is no value of this wire, is malformed, however deep or long."""
    with pytest.raises(MalformedError):
        JSON_CODEC.decode(frame)


BAD_MSGPACK = {
    "nothing": b"",
    "a byte without a meaning": b"\xc1",
    "an array cut short": b"\x93\x01",
    "bin": b"\xc4\x03bin",
    "ext": b"\xc7\x00\x05",
    "a time": b"\xd6\xff\x00\x00\x00\x01",
    "an integer as key": b"\x81\x01\x02",
    "bin as key": b"\x81\xc4\x01a\x02",
    "too large an integer": b"\xcf\x10\x00\x00\x00\x00\x00\x00\x00",
    "not a number": b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    "not UTF-8": b"\xa1\xff",
    "four billion entries": b"\xdd" + struct.pack(">I", 2**32 - 1),
    "five thousand deep": b"\x91" * 5000,
    "two values": b"\x01\x01",
}


@pytest.mark.parametrize("frame", BAD_MSGPACK.values(), ids=BAD_MSGPACK)
def test_bad_msgpack(frame: bytes) -> None:
    """What is not msgpack, or is no value of this wire, is malformed."""
    with pytest.raises(MalformedError):
        MSGPACK_CODEC.decode(frame)


@both
def test_containers_are_bounded(codec: Codec) -> None:
    """A container may hold as many entries as the reader allows, and not one more."""
    whole = frame_of(codec, {"a": list(range(COMMAND_ITEMS))})
    assert codec.decode(whole, max_items=COMMAND_ITEMS) == {"a": list(range(COMMAND_ITEMS))}
    with pytest.raises(MalformedError):
        codec.decode(frame_of(codec, {"a": list(range(COMMAND_ITEMS + 1))}), max_items=COMMAND_ITEMS)


def test_surrogates() -> None:
    """A lone surrogate is replaced as it comes in, in either encoding."""
    assert JSON_CODEC.decode('"\\ud800"') == "\ufffd"
    assert MSGPACK_CODEC.decode(b"\xa3\xed\xa0\x80") == "\ufffd"


def test_wrong_frames() -> None:
    """Text frames are JSON's, binary ones msgpack's."""
    with pytest.raises(MalformedError, match="text frames"):
        JSON_CODEC.decode(b"{}")
    with pytest.raises(MalformedError, match="binary frames"):
        MSGPACK_CODEC.decode("{}")


def test_negotiate() -> None:
    """The first known subprotocol of the client's, JSON for none offered, nothing for unknown ones only."""
    assert negotiate([]) is JSON_CODEC
    assert negotiate(["x", "holdfast.v1.msgpack", "holdfast.v1.json"]) is MSGPACK_CODEC
    assert negotiate(["holdfast.v1.json"]) is JSON_CODEC
    assert negotiate(["x"]) is None
