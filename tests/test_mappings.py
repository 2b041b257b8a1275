"""Whatever is said of each word of an enumeration is said of all of them: no table of the program has a hole.

A table is a mapping that a module or a class holds under a name, and whose keys are words of one of the wire's
enumerations, or members of an Enum. The type checkers do not ask for what is missing.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from types import ModuleType
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeGuard, Union, get_args, get_origin

import pytest

import holdfast.client
import holdfast.protocol
import holdfast.server
from holdfast.client.phases import Phase
from holdfast.protocol.events import EndReason

PARTIAL: Final[Mapping[str, set[Any]]] = {
    # Chunks come too often for a table, and what has settled concerns no reader.
    "holdfast.server.registry.fold._FOLDS": {"run.chunk"},
    "holdfast.protocol.transcript.Transcript._FOLDS": {"run.settled"},
    # Nothing comes in where there is no connection.
    "holdfast.client.phases.TABLE": {Phase.OFFLINE, Phase.OPENING, Phase.CLOSED},
}
"""What is missing on purpose."""


def _modules() -> Iterator[ModuleType]:
    for package in (holdfast.protocol, holdfast.server, holdfast.client):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


MODULES: Final = [*_modules()]


def _words(hint: object) -> frozenset[str]:
    """The words of a Literal, or of a union of Literals."""
    if get_origin(hint) is Literal:
        return frozenset(word for word in get_args(hint) if isinstance(word, str))
    if get_origin(hint) is Union:
        return frozenset[str]().union(*map(_words, get_args(hint)))
    return frozenset()


def _enumerations() -> dict[str, frozenset[str]]:
    """The named Literals of more than one word, by their names."""
    named = {f"{module.__name__}.{name}": _words(value) for module in MODULES for name, value in vars(module).items()}
    return {name: words for name, words in named.items() if len(words) > 1}


ENUMERATIONS: Final = _enumerations()


class Held(NamedTuple):
    """A mapping that a module or a class holds, and the words that its annotation has for keys, where it has any."""

    name: str
    mapping: Mapping[Any, Any]
    annotated: frozenset[str]


def _is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _held() -> Iterator[Held]:
    """Each mapping once, where it is annotated; one without an annotation wherever it is found."""
    unannotated: list[Held] = []
    seen: set[int] = set()
    for module in MODULES:
        holders: list[tuple[str, ModuleType | type]] = [(module.__name__, module)]
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                holders.append((f"{module.__name__}.{name}", value))
        for place, holder in holders:
            annotations = inspect.get_annotations(holder)
            for name, value in vars(holder).items():
                if not _is_mapping(value) or name.startswith("__"):
                    continue
                if name in annotations:
                    hint = eval(annotations[name], vars(module))  # the annotations are the program's own
                    seen.add(id(value))
                    yield Held(f"{place}.{name}", value, _keys_of(hint))
                else:
                    unannotated.append(Held(f"{place}.{name}", value, frozenset()))
    yield from (held for held in unannotated if id(held.mapping) not in seen)


def _keys_of(hint: object) -> frozenset[str]:
    """The words that `Final[Mapping[…, …]]`, or what is like it, has for keys."""
    while get_origin(hint) in (Final, ClassVar):
        (hint,) = get_args(hint)
    arguments = get_args(hint)
    return _words(arguments[0]) if len(arguments) == 2 else frozenset()


def _whole(keys: Iterable[Any]) -> frozenset[Any]:
    """All that the keys are some of: the smallest enumeration that has them; nothing where they are none's."""
    some = frozenset(keys)
    members: list[Enum] = [key for key in some if isinstance(key, Enum)]
    if members and len(members) == len(some):
        return frozenset(type(members[0]))
    if len(some) < 2 or not all(isinstance(key, str) for key in some):
        return frozenset()
    return min((words for words in ENUMERATIONS.values() if some <= words), key=len, default=frozenset[Any]())


TABLES: Final[dict[str, tuple[frozenset[Any], frozenset[Any]]]] = {
    held.name: (frozenset(held.mapping), whole) for held in _held() if (whole := held.annotated or _whole(held.mapping))
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_complete(name: str) -> None:
    """It has an entry for every word of its enumeration but those that are missing on purpose."""
    has, whole = TABLES[name]
    assert whole - has == PARTIAL.get(name, set())


def test_the_tables_are_found() -> None:
    """The search sees what it is for: a table by words, one by members, one of a class, one that has a hole."""
    assert TABLES.keys() >= {
        "holdfast.protocol.ends.ENDS",
        "holdfast.protocol.errors.RETRIES",
        "holdfast.server.registry.table.TABLE",
        "holdfast.server.agents.run._REQUEST_FIELDS",
        "holdfast.client.cli.commands._EXIT_OF_CANCEL",
        *PARTIAL,
    }
    assert _keys_of(Final[Mapping[Literal["a", "b"], int]]) == {"a", "b"}
    assert _whole(["completed", "lost"]) == {*get_args(EndReason)}
    assert _whole(["completed", "lost", "sheep"]) == frozenset()
