"""Where the logs lie: one interface, and the stores behind it."""

from holdfast.server.store.base import (
    FORMAT,
    NO_LOG,
    Appended,
    Batch,
    Checkpoint,
    Conflict,
    Head,
    Log,
    Store,
    StoredMessage,
    StoredSize,
    StoreError,
    StoreUnavailable,
    Tail,
    UnknownFormat,
)
from holdfast.server.store.memory import MemoryStore
from holdfast.server.store.sqlite import SqliteStore
from holdfast.server.store.url import open_store

__all__ = [
    "FORMAT",
    "NO_LOG",
    "Appended",
    "Batch",
    "Checkpoint",
    "Conflict",
    "Head",
    "Log",
    "MemoryStore",
    "SqliteStore",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "StoredMessage",
    "StoredSize",
    "Tail",
    "UnknownFormat",
    "open_store",
]
