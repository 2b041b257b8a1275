"""The log's records as bytes: what a store's batches, checkpoints and archive hold.

A batch is the msgpack of its events one after the other, exactly as they travel in msgpack frames, and at the end,
where there are notes, one map `{"notes": {index: note}}`.

What may be large is encoded and decoded in steps, generators that yield after each: no step takes longer than its
largest entry. `slices.py` runs them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import msgpack

from holdfast.protocol.codec import MSGPACK_CODEC
from holdfast.protocol.events import Message
from holdfast.server.registry import Note, Record
from holdfast.server.session.paging import entries


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
    try:
        # Nearly always: a chunk. An Unpacker costs a megabyte of buffer for each batch.
        return [Record(msgpack.unpackb(payload, strict_map_key=True))]
    except msgpack.ExtraData:
        unpacker = msgpack.Unpacker(max_buffer_size=0, strict_map_key=True)
    unpacker.feed(payload)
    values: list[Any] = list(unpacker)
    notes: dict[str, Note] = {}
    if values and "notes" in values[-1]:
        notes = values.pop()["notes"]
    return [Record(event, notes.get(str(index))) for index, event in enumerate(values)]


def encode_value(value: object) -> bytes:
    """A checkpoint, an entry of a message or an archive record."""
    return MSGPACK_CODEC.encode({"value": value})


def decode_value(payload: bytes) -> Any:
    """What `encode_value` was given."""
    return msgpack.unpackb(payload, strict_map_key=True)["value"]


def encoding_message(message: Message) -> Generator[None, None, bytes]:
    """A message of the archive, in steps: `encode_value` of each of its entries, one after the other."""
    pieces: list[bytes] = []
    for entry, _ in entries(message):
        pieces.append(encode_value(entry))
        yield
    return b"".join(pieces)


class MessageReader:
    """Reads what `encoding_message` was given, entry by entry, from payloads that come in pieces."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=0, strict_map_key=True)

    def feed(self, piece: bytes) -> Iterator[Message]:
        """The entries that are whole with this piece; each is decoded when it is asked for."""
        self._unpacker.feed(piece)
        for found in self._unpacker:
            yield found["value"]


def encoding_checkpoint(checkpoint: Mapping[str, Any]) -> Generator[None, None, bytes]:
    """Encodes a checkpoint in steps: its lists stand behind the rest, `{"value": {...}, "lists": {name: [...]}}`."""
    packer = msgpack.Packer(autoreset=True)
    lists: dict[str, list[Any]] = {name: value for name, value in checkpoint.items() if isinstance(value, list)}
    rest = {name: value for name, value in checkpoint.items() if name not in lists}
    pieces: list[bytes] = [packer.pack_map_header(2), packer.pack("value"), packer.pack(rest)]
    pieces += [packer.pack("lists"), packer.pack_map_header(len(lists))]
    for name, items in lists.items():
        pieces += [packer.pack(name), packer.pack_array_header(len(items))]
        for entry in items:
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
            items: list[Any] = []
            checkpoint[unpacker.unpack()] = items
            for _ in range(unpacker.read_array_header()):
                items.append(unpacker.unpack())
                yield
    return checkpoint
