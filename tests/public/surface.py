"""What a program may use: the public packages, and every name that their signatures say.

A signature is read from the source, not from the running objects, because at run time a name for a type, `Boundary`
say, is the type it stands for and no name any more.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple, TypeAlias

PUBLIC: Final = (
    "holdfast.protocol",
    "holdfast.client",
    "holdfast.client.sync",
    "holdfast.server",
    "holdfast.server.agents.demo",
    "holdfast.server.agents.openai",
    "holdfast.server.agents.prompt",
    "holdfast.server.agents.tools",
    "holdfast.server.store",
)
"""Whatever else there is, is nobody's business but Holdfast's own."""

Node: TypeAlias = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.expr
_PROTOCOL_METHODS: Final = frozenset(
    {"__init__", "__call__", "__iter__", "__next__", "__aiter__", "__anext__", "__enter__", "__aenter__", "__await__"}
)


class Definition(NamedTuple):
    """Where a name is defined: the module, and the name there."""

    module: str
    name: str


def exported(package: str) -> list[str]:
    """The public names of a package."""
    module: ModuleType = importlib.import_module(package)
    names: list[str] = module.__all__
    return names


@functools.cache
def _tree(module: str) -> ast.Module:
    found = importlib.util.find_spec(module)
    assert found is not None, module
    assert found.origin is not None, module
    return ast.parse(Path(found.origin).read_text(encoding="utf-8"))


@functools.cache
def _names(module: str) -> dict[str, Definition | list[Node]]:
    """What a module's names are: imported from elsewhere in Holdfast, or defined here."""
    names: dict[str, Definition | list[Node]] = {}

    def defined(name: str, node: Node) -> None:
        known = names.setdefault(name, [])
        if isinstance(known, list):  # overloads are several
            known.append(node)

    def read(body: list[ast.stmt]) -> None:
        for node in body:
            match node:
                case ast.ImportFrom(module=str(source)) if source.startswith("holdfast."):
                    for alias in node.names:
                        names[alias.asname or alias.name] = Definition(source, alias.name)
                case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                    defined(node.name, node)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    defined(name, value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    defined(name, value)
                case ast.If():
                    read(node.body)
                case _:
                    pass

    read(_tree(module).body)
    return names


def definition(module: str, name: str) -> Definition | None:
    """Where a name that a module uses is defined; None where that is not in Holdfast."""
    found = _names(module).get(name)
    if isinstance(found, Definition):
        if importlib.util.find_spec(f"{found.module}") is not None and found.name in _names(found.module):
            return definition(found.module, found.name)
        return None  # a module
    return None if found is None else Definition(module, name)


def nodes(found: Definition) -> list[Node]:
    """What stands behind a definition."""
    known = _names(found.module)[found.name]
    assert isinstance(known, list), found
    return known


def is_type(found: Definition) -> bool:
    """Whether it is a class, or another name for a type; values are constants."""
    node = nodes(found)[0]
    return isinstance(node, ast.ClassDef) or (isinstance(node, ast.expr) and not _is_value(found))


def _is_value(found: Definition) -> bool:
    for node in _tree(found.module).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if name == found.name:
                return ast.unparse(annotation) != "TypeAlias"
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name == found.name:
                return not _is_union_or_generic(value)
            case _:
                pass
    return True


def _is_union_or_generic(value: ast.expr) -> bool:
    return isinstance(value, ast.Subscript) or (isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr))


def said(found: Definition, *, handed_out: bool) -> Iterator[tuple[str, Definition]]:
    """The places of a public definition that name a type of Holdfast, and that type.

    `handed_out`: programs are given objects of this class and never make one.
    """
    for node in nodes(found):
        for place, module, annotation in _annotations(found, node, handed_out=handed_out):
            for name in _words(annotation):
                other = definition(module, name)
                if other is not None and other != found and not _is_variable(other):
                    yield place, other


def _is_variable(found: Definition) -> bool:
    """Whether it stands for any type, in a generic definition."""
    match nodes(found)[0]:
        case ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec")):
            return True
        case _:
            return False


Annotation: TypeAlias = tuple[str, str, ast.expr]
"""The place, the module that its names are to be read in, and what stands there."""


def _annotations(found: Definition, node: Node, *, handed_out: bool) -> Iterator[Annotation]:
    match node:
        case ast.ClassDef():
            yield from _of_class(found, node, handed_out=handed_out)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from _of_function(found.name, found.module, node)
        case _:
            if not _is_value(found):
                yield found.name, found.module, node


def _of_class(found: Definition, node: ast.ClassDef, *, handed_out: bool) -> Iterator[Annotation]:
    for base in node.bases:
        yield from _inherited(found, base)
    for part in node.body:
        match part:
            case ast.FunctionDef(name="__init__") if handed_out:
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not name.startswith("_") or name in _PROTOCOL_METHODS:
                    yield from _of_function(f"{found.name}.{name}", found.module, part)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if not name.startswith("_"):
                yield f"{found.name}.{name}", found.module, annotation
            case _:
                pass
    for inner in ast.walk(node):  # what its methods say of its attributes
        match inner:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name), annotation=annotation):
                if not name.startswith("_"):
                    yield f"{found.name}.{name}", found.module, annotation
            case ast.FunctionDef(name="__init__"):
                yield from _kept(found, inner)
            case _:
                pass


def _kept(found: Definition, node: ast.FunctionDef) -> Iterator[Annotation]:
    """The arguments that an object keeps under a public name."""
    annotations = {argument.arg: argument.annotation for argument in [*node.args.args, *node.args.kwonlyargs]}
    for part in ast.walk(node):
        match part:
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=ast.Name(id=argument)
            ) if not name.startswith("_"):
                annotation = annotations.get(argument)
                if annotation is not None:
                    yield f"{found.name}.{name}", found.module, annotation
            case _:
                pass


def _inherited(found: Definition, base: ast.expr) -> Iterator[Annotation]:
    """Nobody needs the name of a base, but what it gives is public with the class."""
    other = definition(found.module, next(iter(_words(base)), ""))
    for node in [] if other is None else nodes(other):
        if other is not None and isinstance(node, ast.ClassDef):
            for place, module, annotation in _of_class(other, node, handed_out=True):
                yield f"{found.name}, as {place}", module, annotation


def _of_function(place: str, module: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Annotation]:
    given = node.args
    for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]:
        if argument is not None and argument.annotation is not None:
            yield f"{place}({argument.arg})", module, argument.annotation
    if node.returns is not None:
        yield f"{place}()", module, node.returns


def _words(annotation: ast.expr) -> Iterator[str]:
    """The names of types in an annotation, also within strings; not what `Annotated` says beside them."""
    match annotation:
        case ast.Name(id=name):
            yield name
        case ast.Constant(value=str(text)) if text.isidentifier():
            yield text
        case ast.Call():
            pass
        case _:
            for part in ast.iter_child_nodes(annotation):
                if isinstance(part, ast.expr):
                    yield from _words(part)
