"""The errors of each package stand in one module, whose first lines draw their tree."""

from __future__ import annotations

import importlib
import pkgutil
import re
from types import ModuleType

import pytest

from holdfast.protocol import HoldfastError

PACKAGES = ("holdfast.protocol", "holdfast.client", "holdfast.server")


def modules(package: str) -> list[ModuleType]:
    """All modules of a package."""
    root = importlib.import_module(package)
    return [
        root,
        *(importlib.import_module(found.name) for found in pkgutil.walk_packages(root.__path__, f"{package}.")),
    ]


def drawn(text: str) -> dict[str, str]:
    """The tree in a docstring: each error, and the one above it."""
    above: dict[str, str] = {}
    path: list[str] = []
    for indent, name in re.findall(r"^([ │├└─]*)([A-Z]\w*Error)\b", text, re.M):
        depth = len(indent) // 4
        path = [*path[:depth], name]
        if depth:
            above[name] = path[depth - 1]
    return above


@pytest.mark.parametrize("package", PACKAGES)
def test_errors_stand_in_one_module_that_draws_their_tree(package: str) -> None:
    """Every HoldfastError of a package is defined in its `errors`, and the tree there is the tree there is."""
    defined = {
        value
        for module in modules(package)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, HoldfastError) and value.__module__ == module.__name__
    }
    assert {error.__module__ for error in defined} == {f"{package}.errors"}
    tree = {error.__name__: error.__bases__[0].__name__ for error in defined - {HoldfastError}}
    text = importlib.import_module(f"{package}.errors").__doc__ or ""
    assert {name: base for name, base in drawn(text).items() if name in tree} == tree
    assert drawn(text).keys() - tree.keys() <= {"CommandError"}, "what is drawn is there, here or in the protocol"
