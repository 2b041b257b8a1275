"""The log's records as bytes: what a store's batches, checkpoints and archive hold.

A batch is the msgpack of its events one after the other, exactly as they travel in msgpack frames, and at the end,
where there are notes, one map `{"notes": {index: note}}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from holdfast.protocol.codec import MSGPACK_CODEC
from holdfast.server.registry import Note, Record


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
