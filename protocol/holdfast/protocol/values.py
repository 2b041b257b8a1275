"""What a value may be on the wire: JSON values, bounded, the same in both encodings."""

from __future__ import annotations

import math
import re
from typing import TypeAlias, cast

from holdfast.protocol.errors import MalformedError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""A JSON value: finite numbers, integers within ±(2^53-1), string keys, at most 32 containers deep."""

MAX_DEPTH = 32
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


def clean(value: object, *, max_items: int | None = None, path: str = "$") -> JSON:
    """A copy of `value` that is a JSON value, with lone surrogates replaced by U+FFFD.

    Raises MalformedError, naming the place, for anything else: other types, numbers that are not finite,
    integers beyond ±(2^53-1), keys that are not strings, more than 32 containers inside each other, or a
    container of more than `max_items` entries.
    """
    return _clean(value, max_items, path, 0)


def _clean(value: object, max_items: int | None, path: str, depth: int) -> JSON:
    if isinstance(value, str):
        return clean_text(str(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise MalformedError("integers lie within ±(2^53-1)", path=path)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise MalformedError("numbers are finite", path=path)
        return float(value)
    if not isinstance(value, (list, tuple, dict)):
        raise MalformedError(f"{type(value).__name__} is not a JSON value", path=path)
    if depth == MAX_DEPTH:
        raise MalformedError(f"values nest at most {MAX_DEPTH} deep", path=path)
    container = cast("list[object] | tuple[object, ...] | dict[object, object]", value)
    if max_items is not None and len(container) > max_items:
        raise MalformedError(f"a container holds at most {max_items} entries", path=path)
    if isinstance(container, dict):
        result: dict[str, JSON] = {}
        for key, item in container.items():
            if not isinstance(key, str):
                raise MalformedError("keys are strings", path=path)
            name = clean_text(key)
            result[name] = _clean(item, max_items, f"{path}.{name}", depth + 1)
        return result
    return [_clean(item, max_items, f"{path}[{index}]", depth + 1) for index, item in enumerate(container)]
