"""The two encodings of the wire, and the subprotocol names that choose between them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol

import msgpack
import orjson

from holdfast.protocol.errors import MalformedError
from holdfast.protocol.values import JSON, MAX_DEPTH, clean

COMMAND_ITEMS = 1024
"""How many entries one array or object of a command may hold, in either encoding.

A msgpack header of five bytes can claim four billion entries, and nested headers are paid for before their
contents are seen: this bound refuses them at no cost.
"""
COMMAND_VALUES = 8_192
"""How many values a command may hold in all, in either encoding.

A value can cost a byte of the frame and a microsecond of the server: a megabyte of them would hold up everybody else.
"""
READER_DEPTH = 64
"""How deep a client reads: twice what a server may send, so that no message is unreadable for being wrapped."""
_INTEGER_DIGITS = 400
"""A longer integer is refused unread: turning digits into a number takes the square of their count."""


class Codec(Protocol):
    """One encoding of messages. Encoders take values that are clean already, see `values.clean`."""

    @property
    def subprotocol(self) -> str:
        """The WebSocket subprotocol's name."""
        ...

    @property
    def text(self) -> bool:
        """Whether messages travel in text frames."""
        ...

    def encode(self, message: Mapping[str, Any]) -> bytes:
        """The bytes of a message. Raises TypeError or ValueError where `clean` would have refused a value."""
        ...

    def decode(
        self,
        frame: str | bytes,
        *,
        max_items: int | None = None,
        max_values: int | None = None,
        max_depth: int = MAX_DEPTH,
    ) -> JSON:
        """The clean value in a frame, within the bounds of `values.clean`. What is beyond them costs no more than that.

        Raises MalformedError, and nothing else, for hostile input.
        """
        ...


class JsonCodec:
    """JSON in text frames."""

    subprotocol = "holdfast.v1.json"
    text = True

    def encode(self, message: Mapping[str, Any]) -> bytes:
        """UTF-8 JSON without white space."""
        return orjson.dumps(message)

    def decode(
        self,
        frame: str | bytes,
        *,
        max_items: int | None = None,
        max_values: int | None = None,
        max_depth: int = MAX_DEPTH,
    ) -> JSON:
        """The value in a text frame; a binary frame is malformed."""
        if not isinstance(frame, str):
            raise MalformedError("this connection speaks JSON in text frames")
        # A value that is not counted twice is an empty container, which has two marks; so this refuses none too many.
        if max_values is not None and _marks(frame, 2 * max_values) > 2 * max_values:
            raise MalformedError(f"a message holds at most {max_values} values")
        try:
            # Not orjson, which refuses a lone surrogate instead of letting it be replaced.
            value = json.loads(frame, parse_constant=_refuse_constant, parse_int=_integer)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"not JSON: {error}") from None
        return clean(value, max_items=max_items, max_values=max_values, max_depth=max_depth)


class MsgpackCodec:
    """msgpack in binary frames."""

    subprotocol = "holdfast.v1.msgpack"
    text = False

    def __init__(self) -> None:
        self._packer = msgpack.Packer(autoreset=True)

    def encode(self, message: Mapping[str, Any]) -> bytes:
        """One msgpack map."""
        packed = self._packer.pack(message)
        assert isinstance(packed, bytes), "a packer with autoreset returns what it packed"
        return packed

    def decode(
        self,
        frame: str | bytes,
        *,
        max_items: int | None = None,
        max_values: int | None = None,
        max_depth: int = MAX_DEPTH,
    ) -> JSON:
        """The value in a binary frame; a text frame, bin and ext values are malformed."""
        if isinstance(frame, str):
            raise MalformedError("this connection speaks msgpack in binary frames")
        bound = len(frame) if max_items is None else max_items
        try:
            try:
                value = _unpacked(frame, bound, max_values, "strict")
            except UnicodeDecodeError:
                # What is broken otherwise is refused now; lone surrogates are read, at some cost for each.
                if max_values is not None and frame.translate(_SURROGATE_BYTES).count(b"!?") > max_values:
                    raise MalformedError(f"a message holds at most {max_values} lone surrogates") from None
                value = _unpacked(frame, bound, max_values, "surrogatepass")
        except (ValueError, RecursionError, msgpack.UnpackException) as error:
            raise MalformedError(f"not msgpack: {str(error) or type(error).__name__}") from None
        return clean(value, max_items=max_items, max_values=max_values, max_depth=max_depth)


def _unpacked(frame: bytes, bound: int, max_values: int | None, unicode_errors: str) -> object:
    count = None if max_values is None else _Counter(max_values)
    return msgpack.unpackb(
        frame,
        strict_map_key=True,
        unicode_errors=unicode_errors,
        max_array_len=bound,
        max_map_len=bound,
        max_ext_len=0,
        list_hook=count,
        object_hook=count,
    )


_SURROGATE_BYTES = bytes(0x21 if byte == 0xED else 0x3F if 0xA0 <= byte <= 0xBF else 0 for byte in range(256))
"""Makes `!?` of the first two of a lone surrogate's bytes, and of nothing else in UTF-8."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > _INTEGER_DIGITS:
        raise MalformedError("integers lie within ±(2^53-1)")
    return int(digits)


def _marks(frame: str, enough: int) -> int:
    """Commas and opening brackets of a JSON text outside of its strings: each value but one follows one of them.

    Counts those in strings too where there are not more than `enough` of both. Takes no longer than reading the text.
    """
    found = frame.count(",") + frame.count("[") + frame.count("{")
    if found <= enough:
        return found
    plain = frame.replace("\\\\", "").replace('\\"', "")
    if plain.count('"') > 2 * enough:
        return found  # twice as many strings as there may be values and keys
    outside = "".join(plain.split('"')[::2])
    return outside.count(",") + outside.count("[") + outside.count("{")


class _Counter:
    """Is shown each container that was read, and stops the reading when they hold too many values."""

    __slots__ = ("_left", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most - 1

    def __call__(self, container: Any) -> Any:
        self._left -= len(container)
        if self._left < 0:
            raise MalformedError(f"a message holds at most {self._most} values")
        return container


JSON_CODEC = JsonCodec()
MSGPACK_CODEC = MsgpackCodec()
_CODECS: tuple[Codec, ...] = (JSON_CODEC, MSGPACK_CODEC)


def negotiate(offered: Iterable[str]) -> Codec | None:
    """The codec for the subprotocols a client offers: its first known one, JSON for none offered.

    None where it offers only unknown ones: the upgrade is then refused with HTTP 400.
    """
    names = list(offered)
    if not names:
        return JSON_CODEC
    known = {codec.subprotocol: codec for codec in _CODECS}
    return next((known[name] for name in names if name in known), None)
