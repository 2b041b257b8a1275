"""Parts that grow: the same text however it came, in blocks that are neither many nor large."""

from __future__ import annotations

from time import thread_time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.messages import OpenPart

BLOCK = 64 * 1024
deltas = st.one_of(st.text(max_size=3), st.integers(0, 80_000).map(lambda size: "é" * size))
steps = st.lists(st.one_of(deltas, st.sampled_from(["view", "blocks", "cut"])), max_size=40)


@given(st.one_of(st.none(), deltas), steps, st.data())
def test_text_is_what_came(text: str | None, asked: list[str], data: st.DataObject) -> None:
    """Looked at and cut anywhere in between, the text and its length are those of the deltas one after the other."""
    part, expected = OpenPart("text", {}, text), text or ""
    for step in asked:
        if step == "view":
            assert part.view() == {"kind": "text", "text": expected}
        elif step == "blocks":
            assert "".join(part.blocks() or ()) == expected
        elif step == "cut":
            length = data.draw(st.integers(0, len(expected) + 2))
            part = part.cut(length)
            expected = expected[:length]
        else:
            part.fold({"delta": step})
            expected += step
        assert part.length == len(expected)
    assert part.text == expected


def test_no_text_is_not_an_empty_one() -> None:
    """A part of data has no text until there is some, and input takes the place of the text it was streamed as."""
    assert OpenPart("data", {"name": "x"}).blocks() is None
    part = OpenPart("tool_call", {}, "")
    assert (part.blocks(), part.view()) == ([], {"kind": "tool_call", "arguments": ""})
    part.fold({"delta": "{"})
    part.fold({"input": {}})
    assert (part.blocks(), part.view()) == (None, {"kind": "tool_call", "input": {}})
    part.fold({"delta": "more"})
    assert part.blocks() == ["more"]


def test_blocks_are_few_and_small() -> None:
    """However small or large the deltas are, looked at after each of them or never."""
    for size, number in ((1, 200_000), (3_000, 200), (BLOCK + 1, 5)):
        for looked_at in (False, True):
            part = OpenPart("text", {})
            chunk: dict[str, Any] = {"delta": "x" * size}
            for _ in range(max(5, number // 10) if looked_at else number):
                part.fold(chunk)
                if looked_at:
                    part.blocks()
            blocks = part.blocks() or ()
            assert len(blocks) <= 2 * part.length // BLOCK + 1
            assert max(map(len, blocks)) <= BLOCK + size
    assert max(map(len, OpenPart("text", {}, "x" * 1_000_000).blocks() or ())) <= BLOCK


def test_a_million_deltas_are_viewed_as_one_text_is() -> None:
    """What a view costs is its text, and not the pieces that it came in."""
    part = OpenPart("text", {})
    chunk = {"delta": "word "}
    for _ in range(1_000_000):
        part.fold(chunk)
    began = thread_time()
    for _ in range(10):
        assert len(str(part.view()["text"])) == 5_000_000
    assert thread_time() - began < 0.5
