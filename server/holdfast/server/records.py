"""The log's records as bytes: what a store's batches, checkpoints and archive hold.

A batch is the msgpack of its events one after the other, exactly as they travel in msgpack frames, and at the end,
where there are notes, one map `{"notes": {index: note}}`.

What may be large is encoded and decoded in steps, generators that yield after each: no step takes longer than its
largest entry. `slices.py` runs them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import msgpack

from holdfast.protocol.codec import MSGPACK_CODEC
from holdfast.server.registry import Note, Record

_PIECE: Final = 256 * 1024
"""Code points of a text that are encoded in one step."""
_DEPTH: Final = 4
"""How deep the texts of a message lie: message, parts, part, text."""


def encode_batch(records: Sequence[Record], events: Sequence[bytes]) -> bytes:
    """The payload of a batch, from its records and their encoded events."""
    if len(events) == 1 and records[0].note is None:  # nearly always: a chunk
        return events[0]
    notes = {str(index): record.note for index, record in enumerate(records) if record.note is not None}
    if not notes:
        return b"".join(events)
    return b"".join(events) + MSGPACK_CODEC.encode({"notes": notes})


def decode_batch(payload: bytes) -> list[Record]:
    """The records of a batch."""
    unpacker = msgpack.Unpacker(max_buffer_size=0, strict_map_key=True)
    unpacker.feed(payload)
    values: list[Any] = list(unpacker)
    notes: dict[str, Note] = {}
    if values and "notes" in values[-1]:
        notes = values.pop()["notes"]
    return [Record(event, notes.get(str(index))) for index, event in enumerate(values)]


def encode_value(value: object) -> bytes:
    """A checkpoint, a message or an archive record."""
    return MSGPACK_CODEC.encode({"value": value})


def decode_value(payload: bytes) -> Any:
    """What `encode_value` was given."""
    return msgpack.unpackb(payload, strict_map_key=True)["value"]


def encoding_message(message: Mapping[str, Any]) -> Generator[None, None, bytes]:
    """`encode_value` in steps, for what has long texts."""
    pieces: list[bytes] = []
    for piece in _pieces({"value": message}, _DEPTH):
        pieces.append(piece)
        yield
    return b"".join(pieces)


def _pieces(value: Any, depth: int) -> Iterator[bytes]:
    packer = msgpack.Packer(autoreset=True)
    kind = value.__class__
    if kind is str and len(value) > _PIECE:
        texts: list[bytes] = []
        for start in range(0, len(value), _PIECE):
            texts.append(value[start : start + _PIECE].encode())
            yield b""
        yield b"\xdb" + sum(map(len, texts)).to_bytes(4, "big")  # str 32, which is what so long a text needs
        yield from texts
    elif kind is dict and depth:
        yield packer.pack_map_header(len(value))
        for key, item in value.items():
            yield packer.pack(key)
            yield from _pieces(item, depth - 1)
    elif kind is list and depth:
        yield packer.pack_array_header(len(value))
        for item in value:
            yield from _pieces(item, depth - 1)
    else:
        yield packer.pack(value)


def encoding_checkpoint(checkpoint: Mapping[str, Any]) -> Generator[None, None, bytes]:
    """Encodes a checkpoint in steps: its lists stand behind the rest, `{"value": {...}, "lists": {name: [...]}}`."""
    packer = msgpack.Packer(autoreset=True)
    lists: dict[str, list[Any]] = {name: value for name, value in checkpoint.items() if isinstance(value, list)}
    rest = {name: value for name, value in checkpoint.items() if name not in lists}
    pieces: list[bytes] = [packer.pack_map_header(2), packer.pack("value"), packer.pack(rest)]
    pieces += [packer.pack("lists"), packer.pack_map_header(len(lists))]
    for name, entries in lists.items():
        pieces += [packer.pack(name), packer.pack_array_header(len(entries))]
        for entry in entries:
            pieces.append(packer.pack(entry))
            yield
    return b"".join(pieces)


def decoding_checkpoint(payload: bytes) -> Generator[None, None, dict[str, Any]]:
    """What `encoding_checkpoint` was given, in steps; or `encode_value`, in one."""
    unpacker = msgpack.Unpacker(max_buffer_size=0, strict_map_key=True)
    unpacker.feed(payload)
    fields = unpacker.read_map_header()
    unpacker.skip()
    checkpoint: dict[str, Any] = unpacker.unpack()
    yield
    if fields == 2:
        unpacker.skip()
        for _ in range(unpacker.read_map_header()):
            entries: list[Any] = []
            checkpoint[unpacker.unpack()] = entries
            for _ in range(unpacker.read_array_header()):
                entries.append(unpacker.unpack())
                yield
    return checkpoint
