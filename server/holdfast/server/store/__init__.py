"""Where the logs lie: one interface, and the stores behind it."""

from holdfast.server.errors import InvalidStoreUrlError, StoreError, StoreUnavailableError, UnknownFormatError
from holdfast.server.store.base import Listener, Store
from holdfast.server.store.memory import MemoryStore
from holdfast.server.store.sqlite import SqliteStore
from holdfast.server.store.sqlite_file import Synchronous
from holdfast.server.store.url import open_store
from holdfast.server.store.values import (
    CONFLICT_BATCHES,
    FORMAT,
    NO_LOG,
    NOTHING_OWED,
    PAGE_BYTES,
    WAKE_UP_BYTES,
    Append,
    Appended,
    Batch,
    Checkpoint,
    Conflict,
    Diverged,
    Head,
    Landed,
    LiveNode,
    Log,
    Outcome,
    Owed,
    Presence,
    StoredMessage,
    StoredSize,
    Tail,
    behind,
)

__all__ = [
    "CONFLICT_BATCHES",
    "FORMAT",
    "NOTHING_OWED",
    "NO_LOG",
    "PAGE_BYTES",
    "WAKE_UP_BYTES",
    "Append",
    "Appended",
    "Batch",
    "Checkpoint",
    "Conflict",
    "Diverged",
    "Head",
    "InvalidStoreUrlError",
    "Landed",
    "Listener",
    "LiveNode",
    "Log",
    "MemoryStore",
    "Outcome",
    "Owed",
    "Presence",
    "SqliteStore",
    "Store",
    "StoreError",
    "StoreUnavailableError",
    "StoredMessage",
    "StoredSize",
    "Synchronous",
    "Tail",
    "UnknownFormatError",
    "behind",
    "open_store",
]
