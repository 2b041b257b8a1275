"""What a value may be on the wire."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.errors import MalformedError
from holdfast.protocol.values import MAX_DEPTH, MAX_INTEGER, clean, clean_text, is_id, nests_deeper
from tests.support.strategies import json_values


def nested(depth: int) -> Any:
    """Lists inside each other."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_ids() -> None:
    """1-128 characters of the alphabet, beginning with a letter or digit; nothing else is an id."""
    assert all(is_id(value) for value in ("a", "0", "A.b_c:d~e-f", "x" * 128))
    assert not any(is_id(value) for value in ("", "-a", "a b", "é", "a\n", "x" * 129, 5, None, b"a"))


def test_lone_surrogates() -> None:
    """They become U+FFFD, in strings and in keys; text that is none of them stays as it is."""
    assert clean_text("a\ud800b") == "a\ufffdb"
    assert clean_text("a😀b") == "a😀b"
    assert clean({"\udfff": ["\ud83d"]}) == {"\ufffd": ["\ufffd"]}


@given(json_values)
def test_values_stay_what_they_are(value: Any) -> None:
    """Whatever is a JSON value already is copied as it is."""
    assert clean(value) == value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (MAX_INTEGER + 1, "$"),
        ({"a": [-MAX_INTEGER - 1]}, "$.a[0]"),
        ([math.nan], "$[0]"),
        (math.inf, "$"),
        ({"a": {"b": b"x"}}, "$.a.b"),
        ({1: 2}, "$"),
        (object(), "$"),
        ({"a": nested(MAX_DEPTH)}, "$.a" + "[0]" * (MAX_DEPTH - 1)),
    ],
)
def test_everything_else_is_malformed(value: object, path: str) -> None:
    """What JSON does not know is refused, and its place named."""
    with pytest.raises(MalformedError) as caught:
        clean(value)
    assert (caught.value.code, caught.value.path) == ("malformed", path)


def test_bounds() -> None:
    """The largest that is allowed is allowed, and tuples are lists."""
    assert clean(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    assert clean([MAX_INTEGER, -MAX_INTEGER]) == [MAX_INTEGER, -MAX_INTEGER]
    assert clean((1, True, None, 0.5)) == [1, True, None, 0.5]
    assert clean([[1, 2], {"a": 1}], max_items=2) == [[1, 2], {"a": 1}]
    for value in ([1, 2, 3], {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(MalformedError, match="at most 2 entries"):
            clean(value, max_items=2)


def test_the_values_of_a_message_are_bounded() -> None:
    """All containers together hold so many values; a lone surrogate is one more."""
    assert clean({"a": [1, [2]], "b": {}}, max_values=6) == {"a": [1, [2]], "b": {}}
    with pytest.raises(MalformedError, match="at most 5 values") as caught:
        clean({"a": [1, [2]], "b": {}}, max_values=5)
    assert caught.value.path == "$.a[1]"
    assert clean(["\ud800é"], max_values=3) == ["\ufffdé"]
    for value in (["\ud800\ud800"], {"\ud800\ud800": 1}):
        with pytest.raises(MalformedError, match="lone surrogates"):
            clean(value, max_values=3)


@given(json_values, st.integers(0, 6))
def test_how_deep(value: Any, depth: int) -> None:
    """What nests deeper than a bound is what `clean` refuses by the same bound."""
    if nests_deeper(value, depth):
        with pytest.raises(MalformedError, match=f"at most {depth} deep"):
            clean(value, max_depth=depth)
    else:
        assert clean(value, max_depth=depth) == value
    assert not nests_deeper(nested(depth), depth)
    assert nests_deeper(nested(depth), max(0, depth - 1)) == (depth > 0)
