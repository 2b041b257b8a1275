"""What a value may be on the wire: JSON values, bounded, the same in both encodings."""

from __future__ import annotations

import math
import re
from typing import TypeAlias, cast

from holdfast.protocol.errors import MalformedError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""A JSON value: finite numbers, integers within ±(2^53-1), string keys, at most 32 containers deep."""

MAX_DEPTH = 32
VALUE_DEPTH = 24
"""Of a value that is an application's own: what it is wrapped in on its way to a reader stays below `MAX_DEPTH`."""
MAX_INTEGER = 2**53 - 1
EVENT_BYTES = 256 * 1024
"""The largest encoded event. Longer text is split over several; anything else fails its producer."""
MESSAGE_BYTES = 1024 * 1024
"""The largest message that a server sends."""

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:~-]{0,127}$"
"""The alphabet of every id: sessions, runs, commands, devices, agents, messages."""
_ID = re.compile(ID_PATTERN.removesuffix("$") + r"\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_id(value: object) -> bool:
    """Whether `value` is a string in the alphabet of ids, 1-128 characters long."""
    return isinstance(value, str) and _ID.match(value) is not None


def clean_text(text: str) -> str:
    """`text` with every lone surrogate replaced by U+FFFD: what can be encoded as UTF-8."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


class _FaultError(Exception):
    """Why a value is none, and by which steps it is reached: the innermost first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []


class _Bounds:
    """What a value may hold, and how much of it is left."""

    __slots__ = ("depth", "items", "left", "values")

    def __init__(self, items: float, values: float, depth: int) -> None:
        self.items = items
        self.values = values
        self.depth = depth
        self.left = values - 1


def clean(
    value: object,
    *,
    max_items: int | None = None,
    max_values: int | None = None,
    max_depth: int = MAX_DEPTH,
    path: str = "$",
) -> JSON:
    """A copy of `value` that is a JSON value, with lone surrogates replaced by U+FFFD.

    Raises MalformedError, naming the place, for anything else: other types, numbers that are not finite,
    integers beyond ±(2^53-1), keys that are not strings, more than `max_depth` containers inside each other, a
    container of more than `max_items` entries, or more than `max_values` values in all; a lone surrogate counts as one.
    """
    bounds = _Bounds(
        math.inf if max_items is None else max_items, math.inf if max_values is None else max_values, max_depth
    )
    try:
        return _clean(value, bounds, 0)
    except _FaultError as fault:
        # Named only now: the paths of all values would cost more than everything else together.
        raise MalformedError(fault.reason, path="".join([path, *reversed(fault.steps)])) from None


def _text(text: str, bounds: _Bounds) -> str:
    if text.isascii():
        return str(text)
    try:
        text.encode()  # much faster than looking for what it would not take
    except UnicodeEncodeError:
        pass
    else:
        return str(text)
    left = bounds.left
    cleaned, found = _SURROGATE.subn("\ufffd", text, count=0 if left == math.inf else int(left) + 1)
    bounds.left -= found
    if bounds.left < 0:
        raise _FaultError(f"a message holds at most {bounds.values} values and lone surrogates")
    return cleaned


def _clean(value: object, bounds: _Bounds, depth: int) -> JSON:
    if isinstance(value, str):
        return _text(value, bounds)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise _FaultError("integers lie within ±(2^53-1)")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _FaultError("numbers are finite")
        return float(value)
    if not isinstance(value, (list, tuple, dict)):
        raise _FaultError(f"{type(value).__name__} is not a JSON value")
    if depth == bounds.depth:
        raise _FaultError(f"values nest at most {bounds.depth} deep")
    container = cast("list[object] | tuple[object, ...] | dict[object, object]", value)
    if len(container) > bounds.items:
        raise _FaultError(f"a container holds at most {bounds.items} entries")
    bounds.left -= len(container)
    if bounds.left < 0:
        raise _FaultError(f"a message holds at most {bounds.values} values")
    if isinstance(container, dict):
        result: dict[str, JSON] = {}
        for key, item in container.items():
            if not isinstance(key, str):
                raise _FaultError("keys are strings")
            name = _text(key, bounds)
            try:
                result[name] = _clean(item, bounds, depth + 1)
            except _FaultError as fault:
                fault.steps.append(f".{name}")
                raise
        return result
    items: list[JSON] = []
    for item in container:
        try:
            items.append(_clean(item, bounds, depth + 1))
        except _FaultError as fault:
            fault.steps.append(f"[{len(items)}]")
            raise
    return items


def nests_deeper(value: JSON, depth: int) -> bool:
    """Whether more than `depth` containers lie inside each other in `value`, itself included."""
    level: list[JSON] = [value]
    for _ in range(depth):
        level = [
            item
            for container in level
            if isinstance(container, (list, dict))
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return any(isinstance(item, (list, dict)) for item in level)
