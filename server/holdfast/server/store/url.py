"""Name a store by a URL."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from holdfast.server.errors import InvalidStoreUrlError
from holdfast.server.store.base import Store
from holdfast.server.store.memory import MemoryStore
from holdfast.server.store.sqlite import SqliteStore

KNOWN_URLS = (
    "memory:",
    "sqlite:///relative.db",
    "sqlite:////absolute.db",
    "sqlite:///file.db?synchronous=full",
)


def open_store(url: str) -> Store:
    """Return the store that `url` names, not yet started. Raises `InvalidStoreUrlError`."""
    parts = urlsplit(url)
    if parts.netloc or parts.fragment:
        raise _invalid(url, "a host has no meaning here; three slashes precede a path" if parts.netloc else "no #")
    options = parse_qs(parts.query, keep_blank_values=True)
    match parts.scheme:
        case "memory":
            if parts.path or options:
                raise _invalid(url, "memory takes no path and no option")
            return MemoryStore()
        case "sqlite":
            path = unquote(parts.path.removeprefix("/"))
            if not path or path == ":memory:":
                raise _invalid(url, "a file is wanted")
            match options:
                case {} if not options:
                    return SqliteStore(path)
                case {"synchronous": ["normal" | "full" as synchronous]} if len(options) == 1:
                    return SqliteStore(path, synchronous=synchronous)
                case _:
                    raise _invalid(url, "the one option is synchronous, normal or full")
        case _:
            raise _invalid(url, "the scheme is unknown")


def _invalid(url: str, reason: str) -> InvalidStoreUrlError:
    return InvalidStoreUrlError(f"store {url!r}: {reason}; known are {', '.join(KNOWN_URLS)}")
