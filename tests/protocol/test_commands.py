"""What comes in: what is a command, and where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.commands import SeenPosition, Send, Steer, parse_command, parse_hello
from holdfast.protocol.errors import CommandError
from tests.support.strategies import json_values

GOOD: list[dict[str, Any]] = [
    {"type": "send", "id": "a", "text": "x"},
    {"type": "send", "id": "a", "parts": [{"kind": "file", "url": "u", "mediaType": "t"}], "whenBusy": "alongside"},
    {"type": "send", "id": "a", "text": "", "seen": {"epoch": "e", "seq": 0}, "whenBusy": "interrupt"},
    {"type": "cancel", "id": "a", "runId": "r", "ifUnknown": "prevent"},
    {
        "type": "cancel",
        "id": "a",
        "scope": "session",
        "upTo": {"epoch": "e", "seq": 1},
        "seen": {"epoch": "e", "seq": 1},
    },
    {"type": "steer", "id": "a", "text": "x", "boundary": "step", "ifEnded": "send"},
    {"type": "withdraw", "id": "a", "steerId": "s"},
    {"type": "answer", "id": "a", "runId": "r", "requestId": "q", "value": None},
    {"type": "history", "id": "a", "before": 5, "limit": 200},
    {"type": "auth", "id": "a", "token": "t"},
    {"type": "ping", "id": "a", "trace": f"00-{'a' * 32}-{'b' * 16}-01"},
]


@pytest.mark.parametrize("message", GOOD, ids=repr)
def test_good(message: dict[str, Any]) -> None:
    """What the protocol allows is taken."""
    assert parse_command(message).type == message["type"]


@pytest.mark.parametrize(
    ("message", "code", "path"),
    [
        ({}, "invalid", "$.type"),
        ({"type": 5}, "invalid", "$.type"),
        ({"type": "hello"}, "unknown_type", "$.type"),
        ({"type": "ping"}, "invalid", "$.id"),
        ({"type": "ping", "id": "-"}, "invalid", "$.id"),
        ({"type": "ping", "id": "a", "session": "s"}, "invalid", "$.session"),
        ({"type": "ping", "id": "a", "trace": "00-X"}, "invalid", "$.trace"),
        ({"type": "send", "id": "a"}, "invalid", "$"),
        ({"type": "send", "id": "a", "text": "x", "parts": [{"kind": "text", "text": "x"}]}, "invalid", "$"),
        ({"type": "send", "id": "a", "parts": []}, "invalid", "$.parts"),
        ({"type": "send", "id": "a", "parts": [{"kind": "text"}]}, "invalid", "$.parts[0].text"),
        ({"type": "send", "id": "a", "parts": [{"kind": "file", "url": ""}]}, "invalid", "$.parts[0].url"),
        ({"type": "send", "id": "a", "parts": [{"kind": "movie"}]}, "invalid", "$.parts[0]"),
        ({"type": "send", "id": "a", "text": "x", "run_id": "r"}, "invalid", "$.run_id"),
        ({"type": "send", "id": "a", "text": "x", "seen": {"epoch": "e", "seq": 1}}, "invalid", "$"),
        ({"type": "send", "id": "a", "text": "x", "deadlineMs": 0}, "invalid", "$.deadlineMs"),
        ({"type": "send", "id": "a", "text": "x", "deadlineMs": "5"}, "invalid", "$.deadlineMs"),
        (
            {"type": "send", "id": "a", "text": "x", "whenAbandoned": {"cancelAfterMs": -1}},
            "invalid",
            "$.whenAbandoned.cancelAfterMs",
        ),
        ({"type": "cancel", "id": "a"}, "invalid", "$"),
        ({"type": "cancel", "id": "a", "runId": "r", "scope": "session"}, "invalid", "$"),
        ({"type": "cancel", "id": "a", "scope": "session"}, "invalid", "$"),
        ({"type": "cancel", "id": "a", "runId": "r", "upTo": {"epoch": "e", "seq": 1}}, "invalid", "$"),
        (
            {"type": "cancel", "id": "a", "scope": "session", "upTo": {"epoch": "e", "seq": 1}, "ifUnknown": "prevent"},
            "invalid",
            "$",
        ),
        (
            {"type": "steer", "id": "a", "text": "x", "boundary": "step", "seen": {"epoch": "e", "seq": 1}},
            "invalid",
            "$",
        ),
        ({"type": "answer", "id": "a", "runId": "r", "requestId": "q"}, "invalid", "$.value"),
        ({"type": "history", "id": "a", "limit": 201}, "invalid", "$.limit"),
    ],
)
def test_bad(message: dict[str, Any], code: str, path: str) -> None:
    """What it does not is refused, and the place is named."""
    with pytest.raises(CommandError) as caught:
        parse_command(message)
    assert (caught.value.code, caught.value.path, caught.value.retryable) == (code, path, False)
    assert not str(caught.value).startswith("Value error")


@given(
    st.sampled_from(GOOD),
    st.dictionaries(st.sampled_from([*"abc", "type", "id", "text", "seen", "parts"]), json_values),
)
def test_hostile(message: dict[str, Any], fields: dict[str, Any]) -> None:
    """Whatever is in the fields, there is a command or an error that names a place."""
    error: CommandError | None = None
    try:
        parse_command({**message, **fields})
    except CommandError as raised:
        error = raised
    assert error is None or (error.path or "").startswith("$")


def test_content() -> None:
    """Text is one text part; parts travel as they came, without what was left out."""
    assert Send(id="a", text="x").content() == [{"kind": "text", "text": "x"}]
    command = parse_command(GOOD[1])
    assert isinstance(command, Send)
    assert command.content() == [{"kind": "file", "url": "u", "mediaType": "t"}]


def test_names_and_positions() -> None:
    """A run is named by its sender or after its command; positions are plain values in events."""
    command = parse_command({"type": "send", "id": "a", "runId": "r", "text": "x"})
    assert isinstance(command, Send)
    assert command.run == "r"
    assert Send(id="a", text="x").run == "a"
    assert SeenPosition(epoch="e", seq=3).position() == {"epoch": "e", "seq": 3}
    assert Steer(id="a", text="x").if_ended == "return"


def test_hello() -> None:
    """Unknown fields of a hello are ignored, wrong ones are named."""
    hello = parse_hello({"type": "hello", "mood": "good", "cursor": {"epoch": "e", "seq": 0, "x": 1}})
    assert (hello.messages, hello.features, hello.cursor and hello.cursor.seq) == (50, [], 0)
    for fields, path in (({"messages": 201}, "$.messages"), ({"cursor": {"epoch": "e"}}, "$.cursor.seq")):
        with pytest.raises(CommandError) as caught:
            parse_hello({"type": "hello", **fields})
        assert caught.value.path == path
