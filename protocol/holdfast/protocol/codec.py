"""The two encodings of the wire, and the subprotocol names that choose between them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol

import msgpack
import orjson

from holdfast.protocol.errors import MalformedError
from holdfast.protocol.values import JSON, clean

COMMAND_ITEMS = 1024
"""How many entries one array or object of a command may hold, in either encoding.

A msgpack header of five bytes can claim four billion entries, and nested headers are paid for before their
contents are seen: this bound refuses them at no cost.
"""


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

    def decode(self, frame: str | bytes, *, max_items: int | None = None) -> JSON:
        """The clean value in a frame. Raises MalformedError, and nothing else, for hostile input."""
        ...


class JsonCodec:
    """JSON in text frames."""

    subprotocol = "holdfast.v1.json"
    text = True

    def encode(self, message: Mapping[str, Any]) -> bytes:
        """UTF-8 JSON without white space."""
        return orjson.dumps(message)

    def decode(self, frame: str | bytes, *, max_items: int | None = None) -> JSON:
        """The value in a text frame; a binary frame is malformed."""
        if not isinstance(frame, str):
            raise MalformedError("this connection speaks JSON in text frames")
        try:
            # Not orjson, which refuses a lone surrogate instead of letting it be replaced.
            value = json.loads(frame, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"not JSON: {error}") from None
        return clean(value, max_items=max_items)


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

    def decode(self, frame: str | bytes, *, max_items: int | None = None) -> JSON:
        """The value in a binary frame; a text frame, bin and ext values are malformed."""
        if isinstance(frame, str):
            raise MalformedError("this connection speaks msgpack in binary frames")
        bound = len(frame) if max_items is None else max_items
        try:
            value = msgpack.unpackb(
                frame,
                strict_map_key=True,
                unicode_errors="surrogatepass",
                max_array_len=bound,
                max_map_len=bound,
                max_ext_len=0,
            )
        except (ValueError, RecursionError, msgpack.UnpackException) as error:
            raise MalformedError(f"not msgpack: {str(error) or type(error).__name__}") from None
        return clean(value, max_items=max_items)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


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
