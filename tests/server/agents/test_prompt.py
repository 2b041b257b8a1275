"""The transcript as a model's history."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from holdfast.protocol import Message, Part
from holdfast.server.agents.prompt import INTERRUPTED, chat_completions, responses_input
from tests.support.fake_run import user
from tests.support.openai_rules import chat_fault, responses_fault


def assistant(*parts: Part, status: str = "complete", **fields: JsonValue) -> Message:
    """An assistant's message."""
    message: dict[str, Any] = {"id": "a", "role": "assistant", "parts": list(parts), "at": 0, "seq": 2}
    return cast("Message", {**message, "after": "u", "runId": "r", "status": status, **fields})


def said(text: str) -> Part:
    """A text part."""
    return {"kind": "text", "text": text}


def call(call_id: str = "c1", name: str = "weather", **fields: JsonValue) -> Part:
    """A tool call; without fields its input is an empty object."""
    return {"kind": "tool_call", "callId": call_id, "name": name, **(fields or {"input": {}})}


def result(call_id: str = "c1", **fields: JsonValue) -> Part:
    """A tool's result."""
    return {"kind": "tool_result", "callId": call_id, **fields}


def steer(*parts: Part) -> Part:
    """A steer where it was applied."""
    return {"kind": "steer", "steerId": "st", "parts": list(parts), "by": "ana", "device": "phone"}


# ---- any transcript is accepted

_words = st.sampled_from(["", " ", "hello", "{", '{"city":"Lis', '{"city":"Lisbon"}', "[1]", "null", "\ud800"])
_ids = st.sampled_from(["c1", "c2", "call_0", "call_1", "", "with.dots", "x" * 100])
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)
_urls = st.sampled_from(["", "https://x.test/a", "data:image/png;base64,AA==", "data:audio/wav;base64,AA==", "ftp:x"])
_media_types = st.sampled_from(["image/png", "application/pdf", "audio/wav", "text/plain", "", "IMAGE/JPEG"])
_text_parts: st.SearchStrategy[Any] = st.builds(said, _words)
_user_parts: st.SearchStrategy[Any] = _text_parts | st.fixed_dictionaries(
    {"kind": st.just("file"), "url": _urls, "mediaType": _media_types}, optional={"name": _words}
)
_names = st.sampled_from(["weather", "", "with space", "ü" * 80])
_assistant_parts: st.SearchStrategy[Any] = st.one_of(
    _text_parts,
    st.builds(call, _ids, _names, arguments=_words),
    st.builds(call, _ids, _names, input=_values),
    st.builds(result, _ids, output=_values),
    st.builds(result, _ids, error=_words),
    st.lists(_user_parts, max_size=2).map(lambda parts: steer(*parts)),
    st.fixed_dictionaries({"kind": st.just("reasoning"), "text": _words}),
    st.fixed_dictionaries({"kind": st.just("data"), "name": st.just("n"), "value": _values}),
    st.just({"kind": "later", "what": "ever"}),
)
_said_by_user: st.SearchStrategy[list[Message]] = st.lists(_user_parts, max_size=3).map(
    lambda parts: [cast("Message", {**user(""), "parts": parts})]
)
_said_by_assistant: st.SearchStrategy[list[Message]] = st.lists(
    st.lists(_assistant_parts, max_size=8), min_size=1, max_size=2
).map(lambda entries: [assistant(*parts, continued=number > 0) for number, parts in enumerate(entries)])
_transcripts: st.SearchStrategy[list[Message]] = st.lists(_said_by_user | _said_by_assistant, max_size=6).map(
    lambda entries: [user("hello"), *(message for entry in entries for message in entry)]
)


@given(_transcripts)
def test_every_transcript_is_accepted_by_chat_completions(transcript: list[Message]) -> None:
    """Whatever was stopped, cut or repeated: the strict rules of chat completions find no fault."""
    assert chat_fault({"messages": chat_completions(transcript)}) is None


@given(_transcripts)
def test_every_transcript_is_accepted_by_responses(transcript: list[Message]) -> None:
    """Whatever was stopped, cut or repeated: the strict rules of responses find no fault."""
    assert responses_fault({"input": responses_input(transcript)}) is None


@given(_transcripts)
def test_what_was_said_stays(transcript: list[Message]) -> None:
    """Every text that the model gave is in both histories, in order."""
    kept = [
        str(part["text"])
        for message in transcript
        if message["role"] == "assistant"
        for part in message["parts"]
        if part["kind"] == "text" and str(part["text"]).strip()
    ]
    for history in (chat_completions(transcript), responses_input(transcript)):
        text = "".join(str(item["content"] or "") for item in history if item.get("role") == "assistant")
        position = 0
        for words in kept:
            position = text.index(words, position) + len(words)


@given(_transcripts)
def test_history_grows_at_its_end_only(transcript: list[Message]) -> None:
    """A further message changes nothing before it, so a provider's prompt cache holds."""
    longer = [*transcript, user("and then?", "u9")]
    for convert in (chat_completions, responses_input):
        before = convert(transcript)
        assert convert(longer)[: len(before)] == before


# ---- what each thing becomes


def test_stopped_run_keeps_its_partial() -> None:
    """The part of a message that was on screen when its run was stopped is in the history."""
    transcript = [user("count"), assistant(said("one, two"), status="interrupted"), user("go on", "u2")]
    assert chat_completions(transcript) == [
        {"role": "user", "content": "count"},
        {"role": "assistant", "content": "one, two"},
        {"role": "user", "content": "go on"},
    ]
    assert responses_input(transcript) == chat_completions(transcript)


def test_steer_splits_the_message() -> None:
    """A steer stands as a user's message between what was said before it and what came after."""
    transcript = [user("count"), assistant(said("one, "), steer(said("in French")), said("deux"))]
    assert [(item["role"], item["content"]) for item in chat_completions(transcript)] == [
        ("user", "count"),
        ("assistant", "one, "),
        ("user", "in French"),
        ("assistant", "deux"),
    ]


def test_dangling_call_is_closed() -> None:
    """A call without a result gets one that says so, before anything else follows."""
    transcript = [user("weather?"), assistant(call(input={"city": "Lisbon"})), user("never mind", "u2")]
    assert chat_completions(transcript)[1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Lisbon"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": INTERRUPTED},
        {"role": "user", "content": "never mind"},
    ]
    assert responses_input(transcript)[1:3] == [
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Lisbon"}'},
        {"type": "function_call_output", "call_id": "c1", "output": INTERRUPTED},
    ]


def test_cut_argument_text_is_kept_as_an_object() -> None:
    """Argument text that was cut in the middle is handed over inside an object that parses."""
    items = responses_input([user("weather?"), assistant(call(arguments='{"city":"Lis'))])
    assert items[1]["arguments"] == '{"unparsed":"{\\"city\\":\\"Lis"}'


def test_parallel_calls_stand_together_and_rounds_apart() -> None:
    """Calls made together are one message; a call after a result is the next."""
    transcript = [
        user("weather?"),
        assistant(call("a"), call("b"), result("b", output=2), result("a", output="one"), call("c")),
    ]
    history = chat_completions(transcript)
    assert [
        [cast("dict[str, Any]", made)["id"] for made in cast("list[Any]", item["tool_calls"])]
        if "tool_calls" in item
        else item.get("content")
        for item in history
    ] == ["weather?", ["a", "b"], "one", "2", ["c"], INTERRUPTED]


def test_repeated_call_ids_become_unique() -> None:
    """Two rounds whose server numbers its calls anew keep their own results."""
    transcript = [
        user("x"),
        assistant(call(), result(output="first"), call(), result(output="second")),
        assistant(call(), result(output="third")),
    ]
    outputs = {item["call_id"]: item["output"] for item in responses_input(transcript) if "output" in item}
    assert list(outputs.values()) == ["first", "second", "third"]


def test_errors_and_values_of_tools_are_told() -> None:
    """A tool's error is marked as one, other results are JSON unless they are text."""
    transcript = [user("x"), assistant(call("a"), call("b"), result("a", error="no city"), result("b", output=[1]))]
    told = [item["content"] for item in chat_completions(transcript) if item["role"] == "tool"]
    assert told == ["error: no city", "[1]"]


def test_images_and_documents_of_users_are_passed_on() -> None:
    """Images and PDF files go in the form of each API; what it does not take is named in words."""
    image: Part = {"kind": "file", "url": "https://x.test/a.png", "mediaType": "image/png"}
    report: Part = {"kind": "file", "url": "data:application/pdf;base64,AA==", "mediaType": "application/pdf"}
    online: Part = {"kind": "file", "url": "https://x.test/r.pdf", "mediaType": "application/pdf", "name": "r"}
    sound: Part = {"kind": "file", "url": "data:audio/wav;base64,AA==", "mediaType": "audio/wav"}
    transcript = [cast("Message", {**user("see"), "parts": [said("see"), image, report, online, sound]})]
    assert chat_completions(transcript)[0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
        {"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        {"type": "text", "text": "[attached file r, application/pdf at https://x.test/r.pdf]"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]
    assert responses_input(transcript)[0]["content"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "auto"},
        {"type": "input_file", "filename": "file.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_file", "file_url": "https://x.test/r.pdf"},
        {"type": "input_text", "text": "[attached file (unnamed), audio/wav]"},
    ]


def test_what_models_do_not_read_is_left_out() -> None:
    """Reasoning, data, sources and empty messages leave no trace."""
    silent: list[Part] = [
        {"kind": "reasoning", "text": "hm"},
        {"kind": "data", "name": "n", "value": 1},
        {"kind": "source", "url": "https://x.test"},
        said(" "),
    ]
    assert chat_completions([user("x"), assistant(*silent), assistant()]) == [{"role": "user", "content": "x"}]
