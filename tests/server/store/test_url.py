"""Stores named by URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.server.errors import StoreError
from holdfast.server.store import MemoryStore, SqliteStore, Store, open_store


def test_memory_is_named_by_its_scheme() -> None:
    """`memory:` is a store of this process alone."""
    store = open_store("memory:")
    assert isinstance(store, MemoryStore)
    assert not store.shared


@pytest.mark.parametrize("query", ["", "?synchronous=normal", "?synchronous=full"])
async def test_three_slashes_name_a_relative_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """The path after three slashes begins at the working directory."""
    monkeypatch.chdir(tmp_path)
    await _used(open_store(f"sqlite:///here%20too.db{query}"))
    assert (tmp_path / "here too.db").exists()


async def test_four_slashes_name_an_absolute_file(tmp_path: Path) -> None:
    """The path after four slashes begins at the root."""
    await _used(open_store(f"sqlite:///{tmp_path}/there.db"))
    assert (tmp_path / "there.db").exists()


async def _used(store: Store) -> None:
    assert isinstance(store, SqliteStore)
    await store.start()
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/db",
        "",
        "holdfast.db",
        "memory:///x",
        "memory:?x=1",
        "sqlite:",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://relative.db",
        "sqlite:///x.db#y",
        "sqlite:///x.db?synchronous=off",
        "sqlite:///x.db?synchronous=full&synchronous=normal",
        "sqlite:///x.db?mode=ro",
        "sqlite:///x.db?synchronous=full&mode=ro",
    ],
)
def test_a_url_not_understood_lists_the_known_ones(url: str) -> None:
    """A wrong URL is a ValueError and a StoreError that says what may be written instead."""
    with pytest.raises(StoreError, match=r"known are memory:, sqlite:///relative\.db") as caught:
        open_store(url)
    assert isinstance(caught.value, ValueError)
