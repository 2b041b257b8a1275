"""Where the logs lie: one interface, and the stores behind it."""

from holdfast.server.store.base import (
    CONFLICT_BATCHES,
    FORMAT,
    NO_LOG,
    PAGE_BYTES,
    Appended,
    Batch,
    Checkpoint,
    Conflict,
    Diverged,
    Head,
    Log,
    Store,
    StoredMessage,
    StoredSize,
    StoreError,
    StoreUnavailable,
    Tail,
    UnknownFormat,
    behind,
)
from holdfast.server.store.memory import MemoryStore
from holdfast.server.store.sqlite import SqliteStore
from holdfast.server.store.url import open_store

__all__ = [
    "CONFLICT_BATCHES",
    "FORMAT",
    "NO_LOG",
    "PAGE_BYTES",
    "Appended",
    "Batch",
    "Checkpoint",
    "Conflict",
    "Diverged",
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
    "behind",
    "open_store",
]
