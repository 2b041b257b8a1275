"""The public surface is closed: what its signatures name is exported, and nothing else is."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from typing import Final

import pytest

from holdfast.protocol import HoldfastError
from tests.public.surface import PUBLIC, Definition, definition, exported, is_type, said

ROOT: Final = Path(__file__).parents[2]
HANDED_OUT: Final = frozenset(
    {
        "holdfast.client.feed.Feed",
        "holdfast.client.opening.Opening",
        "holdfast.client.run.Run",
        "holdfast.client.session.Session",
        "holdfast.client.submitted.Submitted",
        "holdfast.client.sync.Feed",
        "holdfast.client.sync.Run",
        "holdfast.client.sync.Session",
        "holdfast.protocol.transcript.TranscriptRun",
        "holdfast.server.agents.run.Run",
        "holdfast.server.server.Running",
    }
)
"""Classes whose objects are given to programs. How they are made is nobody's business."""
BEGINNINGS: Final = frozenset(
    {
        "CloseCode",
        "MemoryStore",
        "Server",
        "ServerMessage",
        "SqliteStore",
        "TokenAuthenticator",
        "Transcript",
    }
)
"""Classes that a program begins with: it makes them, and no signature needs to name them."""


@functools.cache
def public() -> dict[Definition, list[str]]:
    """Every public definition, and the packages that export it."""
    found: dict[Definition, list[str]] = {}
    for package in PUBLIC:
        for name in exported(package):
            where = definition(package, name)
            assert where is not None, f"{package}.{name} is not Holdfast's own"
            found.setdefault(where, []).append(package)
    return found


def is_error(found: Definition) -> bool:
    """Whether it is an exception."""
    value: object = getattr(importlib.import_module(found.module), found.name)
    return isinstance(value, type) and issubclass(value, BaseException)


def named(found: Definition) -> list[tuple[str, Definition]]:
    """What the signatures of a public definition name."""
    return list(said(found, handed_out=f"{found.module}.{found.name}" in HANDED_OUT))


@pytest.mark.parametrize("package", PUBLIC)
def test_what_signatures_name_is_exported(package: str) -> None:
    """Whoever may use a name may also name all that it takes and gives: each type is exported by a public package."""
    hidden = [
        f"{place}: {other.name} of {other.module}"
        for found, packages in public().items()
        if package in packages
        for place, other in named(found)
        if other not in public()
    ]
    assert not hidden, f"export these from the package they belong to, or make the place private: {hidden}"


def test_nothing_else_is_exported() -> None:
    """A public type is an error, one that a program begins with, or one that a public signature names."""
    needed = {other for found in public() for _, other in named(found)}
    idle = [
        f"{packages[0]}.{found.name}"
        for found, packages in public().items()
        if is_type(found) and found not in needed and found.name not in BEGINNINGS and not is_error(found)
    ]
    assert not idle, f"no public signature names these: {idle}"


def test_handed_out_classes_and_beginnings_are_public() -> None:
    """The lists of this test name what there is."""
    names = {f"{found.module}.{found.name}" for found in public()}
    assert names >= HANDED_OUT
    assert {found.name for found in public()} >= BEGINNINGS


@pytest.mark.parametrize("package", PUBLIC)
def test_exported_names_are_there(package: str) -> None:
    """Each name of `__all__` can be imported, and is private by no underscore."""
    module = importlib.import_module(package)
    for name in exported(package):
        assert hasattr(module, name), name
        assert not name.startswith("_"), name


def test_texts_and_examples_use_public_names_only() -> None:
    """What README, docs and examples import is exported by a public package."""
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]
    imports = [
        (path.name, package, name.strip())
        for path in texts
        for package, names in re.findall(r"^from (holdfast[\w.]*) import (.+)$", path.read_text(encoding="utf-8"), re.M)
        for name in names.split(",")
    ]
    assert imports, "they show imports"
    assert not [found for found in imports if found[1] not in PUBLIC or found[2] not in exported(found[1])]


def test_every_error_has_the_one_root() -> None:
    """What a public package exports as an error is a HoldfastError."""
    for found in public():
        if is_error(found):
            assert issubclass(getattr(importlib.import_module(found.module), found.name), HoldfastError), found
