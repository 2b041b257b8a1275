"""The shared vectors, read against this package.

`protocol/vectors/README.md` says what each file holds. What needs a client (`cursor`, `backoff`) or a server
(`resume`, `seen`) is checked here for its form only; `tests/client` and `tests/browser` run what a client reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import pytest

from holdfast.protocol.close_codes import may_reconnect
from holdfast.protocol.codec import JSON_CODEC, MSGPACK_CODEC, Codec, negotiate
from holdfast.protocol.commands import Command, Send, parse_command, parse_hello
from holdfast.protocol.errors import CommandError, MalformedError
from holdfast.protocol.transcript import Transcript
from tests.support.vectors import TEXT, VECTORS, Case

ANCHORS: Final[list[str]] = re.findall(r"\*\*([A-Z]+\.\d+)", TEXT)


def cases(name: str) -> list[Any]:
    """The vectors of one file as parameters named by their descriptions."""
    return [pytest.param(case, id=case["description"]) for case in VECTORS[name]]


def folded(messages: list[Any]) -> Transcript:
    """The transcript after snapshots and events in the order a connection brought them."""
    transcript = Transcript()
    for message in messages:
        fold(transcript, message)
    return transcript


def fold(transcript: Transcript, message: Any) -> None:
    """Brings one server message that belongs to the log into the transcript."""
    if message["type"] == "snapshot":
        transcript.load(message)
    else:
        transcript.apply(message)


def view(transcript: Transcript) -> dict[str, Any]:
    """What a reader is shown, as the vectors write it."""
    return {
        "seq": transcript.seq,
        "messages": transcript.messages(),
        "runs": [run.snapshot() for run in transcript.runs.values()],
    }


def test_anchors_of_the_text_are_unique_and_counted_without_a_hole() -> None:
    """A test or a vector that names a property finds exactly one, and none was dropped in silence."""
    last: dict[str, int] = {}
    for anchor in ANCHORS:
        group, number = anchor.split(".")
        before = last.get(group, 0)
        assert int(number) == before + 1, f"in the text {anchor} stands behind {group}.{before}: count on from there"
        last[group] = int(number)


def test_every_anchor_the_text_refers_to_exists() -> None:
    """No reference inside the text leads nowhere."""
    nowhere = set(re.findall(r"\b[A-Z]+\.\d+\b", TEXT)) - set(ANCHORS)
    assert not nowhere, f"the text refers to these and has none of them: {sorted(nowhere)}"


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_have_one_form(name: str) -> None:
    """Each case has a description of its own, a property that exists, and either a result or an error."""
    descriptions = [case["description"] for case in VECTORS[name]]
    assert len(set(descriptions)) == len(descriptions) > 0
    for case in VECTORS[name]:
        assert set(case) in ({"description", "rule", "in", "out"}, {"description", "rule", "in", "error"})
        assert case["rule"] in ANCHORS


@pytest.mark.parametrize("case", cases("codec"))
def test_codec(case: Case) -> None:
    """A frame decodes to the value of the vector, or is malformed."""
    given = case["in"]
    frames: dict[str, tuple[Codec, str | bytes]] = {}
    if "json" in given:
        frames["json"] = JSON_CODEC, given["json"]
    if "msgpack" in given:
        frames["msgpack"] = MSGPACK_CODEC, bytes.fromhex(given["msgpack"])
    if "jsonBinary" in given:
        frames["jsonBinary"] = JSON_CODEC, bytes.fromhex(given["jsonBinary"])
    if "msgpackText" in given:
        frames["msgpackText"] = MSGPACK_CODEC, given["msgpackText"]
    ((codec, frame),) = frames.values()
    bounds: dict[str, Any] = {"max_items": given.get("maxItems"), "max_values": given.get("maxValues")}
    if "error" in case:
        with pytest.raises(MalformedError) as caught:
            codec.decode(frame, **bounds)
        assert caught.value.code == case["error"]["code"]
    else:
        assert codec.decode(frame, **bounds) == case["out"]


@pytest.mark.parametrize("codec", [JSON_CODEC, MSGPACK_CODEC], ids=lambda codec: str(codec.subprotocol))
def test_what_decodes_travels_unchanged_in_both_encodings(codec: Codec) -> None:
    """Every value and message of the vectors comes out of an encoding as it went in."""
    messages: list[dict[str, Any]] = [message for case in VECTORS["transcript"] for message in case["in"]]
    messages += [case["out"] for case in VECTORS["codec"] if isinstance(case.get("out"), dict)]
    for message in messages:
        encoded = codec.encode(message)
        assert codec.decode(encoded.decode() if codec.text else encoded) == message


@pytest.mark.parametrize("case", cases("subprotocols"))
def test_subprotocols(case: Case) -> None:
    """The offered subprotocols lead to the encoding of the vector, or to a refused upgrade."""
    codec = negotiate(case["in"])
    assert (None if codec is None else codec.subprotocol) == case.get("out")


def command_fields(command: Command) -> dict[str, Any]:
    """A command's fields by their wire names, with the run id that a send means."""
    fields = command.model_dump(by_alias=True)
    if isinstance(command, Send):
        fields["runId"] = command.run
    return fields


def reads_as(fields: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether the command has every field that the vector names, in value and in JSON type.

    Objects inside may have more fields than the vector (optional ones that are absent read as None).
    """
    return all(name in fields and _same(fields[name], value) for name, value in expected.items())


def _same(got: Any, expected: Any) -> bool:
    if _is_object(expected):
        return _is_object(got) and reads_as(got, expected)
    if _is_array(expected):
        return _is_array(got) and len(got) == len(expected) and all(map(_same, got, expected))
    return json.dumps(got) == json.dumps(expected)


def _is_object(value: Any) -> TypeGuard[Case]:
    return isinstance(value, dict)


def _is_array(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


@pytest.mark.parametrize("case", cases("commands"))
def test_commands(case: Case) -> None:
    """A command reads as in the vector, defaults included, or is refused with code and place."""
    if "error" in case:
        with pytest.raises(CommandError) as caught:
            parse_command(case["in"])
        assert {"code": caught.value.code, "path": caught.value.path} == case["error"]
    else:
        assert reads_as(command_fields(parse_command(case["in"])), case["out"])


@pytest.mark.parametrize("case", cases("hello"))
def test_hello(case: Case) -> None:
    """A hello reads as in the vector, or is refused with the place at fault."""
    if "error" in case:
        with pytest.raises(CommandError) as caught:
            parse_hello(case["in"])
        assert {"code": caught.value.code, "path": caught.value.path} == case["error"]
    else:
        assert reads_as(parse_hello(case["in"]).model_dump(by_alias=True), case["out"])


@pytest.mark.parametrize("case", cases("close_codes"))
def test_close_codes(case: Case) -> None:
    """A close code tells whether to come back."""
    assert may_reconnect(case["in"]["code"]) is case["out"]["reconnect"]


@pytest.mark.parametrize("case", cases("transcript"))
def test_transcript(case: Case) -> None:
    """Snapshots and events fold to the messages and runs of the vector."""
    assert view(folded(case["in"])) == case["out"]


@pytest.mark.parametrize("case", cases("transcript"))
def test_a_snapshot_at_any_place_gives_the_same_transcript(case: Case) -> None:
    """Who joins by a snapshot cut anywhere, and folds the rest, sees what the others see."""
    messages: list[Any] = case["in"]
    whole = view(folded(messages))
    for cut in range(1, len(messages)):
        if messages[cut - 1].get("last") is False:
            continue  # inside a snapshot: there is no state of its own to cut
        joined, before = Transcript(), folded(messages[:cut])
        snapshot: Any = {
            "type": "snapshot",
            "epoch": before.epoch,
            "seq": before.seq,
            "at": before.at,
            "reset": False,
            "messages": before.messages(),
            "runs": [run.snapshot() for run in before.runs.values()],
            "more": before.more,
            "last": True,
        }
        joined.load(json.loads(json.dumps(snapshot)))
        for message in messages[cut:]:
            fold(joined, message)
        assert view(joined) == whole


@pytest.mark.parametrize("case", cases("kept"))
def test_kept(case: Case) -> None:
    """A cut leaves the parts of the vector, in code points, in a stop as in a steer."""
    event, kept = case["in"]["event"], case["in"]["kept"]
    steer: Any = {
        "steerId": "s-1",
        "parts": [],
        "boundary": "now",
        "ifEnded": "return",
        "by": "ana",
        "device": "d",
    }
    transcript = Transcript()
    message: Any = {
        "id": "a-1",
        "role": "assistant",
        "parts": case["in"]["parts"],
        "at": 1,
        "seq": 2,
        "after": "u-1",
        "runId": "r-1",
        "status": "streaming",
    }
    run: Any = {
        "runId": "r-1",
        "status": "running",
        "agent": "assistant",
        "by": "ana",
        "device": "d",
        "messageId": "a-1",
        "startedSeq": 2,
        "requests": [],
        "steers": [steer],
    }
    transcript.load(
        {
            "type": "snapshot",
            "epoch": "e1",
            "seq": 9,
            "at": 9,
            "reset": False,
            "messages": [message],
            "runs": [run],
            "more": False,
            "last": True,
        }
    )
    cut = {} if kept is None else {"seen": {"epoch": "e1", "seq": 5}, "kept": kept}
    if event == "run.ended":
        transcript.apply(
            {"type": event, "seq": 10, "at": 10, "runId": "r-1", "reason": "cancelled", "returned": [], **cut}
        )
        assert transcript.messages()[0]["parts"] == case["out"]
    else:
        transcript.apply({"type": event, "seq": 10, "at": 10, "runId": "r-1", "steerId": "s-1", **cut})
        parts = transcript.messages()[0]["parts"]
        assert parts[:-1] == case["out"]
        assert parts[-1]["kind"] == "steer"
