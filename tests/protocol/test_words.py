"""The words that fields may hold: the program, the shared vectors and the text have the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, get_args, get_type_hints

import pytest

from holdfast.protocol import commands, control, events
from holdfast.protocol.close_codes import CloseCode, may_reconnect
from holdfast.protocol.commands import CommandType
from holdfast.protocol.errors import RETRIES, CommandError, ErrorCode, Retry, retry_of
from tests.support.vectors import ENDS, TEXT, VECTORS, Case, text_table

WORDS: Final[Mapping[str, Any]] = {
    "send.outcome": control.OutcomeOfSend,
    "cancel.outcome": control.OutcomeOfCancel,
    "steer.outcome": control.OutcomeOfSteer,
    "withdraw.outcome": control.OutcomeOfWithdraw,
    "answer.outcome": control.OutcomeOfAnswer,
    "send.whenBusy": commands.WhenBusy,
    "cancel.ifUnknown": commands.IfUnknown,
    "steer.boundary": events.Boundary,
    "steer.ifEnded": events.IfEnded,
    "welcome.resume": control.Resume,
    "run.status": events.RunStatus,
    "message.status": events.MessageStatus,
    "request.kind": events.RequestKind,
    "run.resolved.outcome": events.RequestOutcome,
}
TOLD: Final[dict[str, list[str]]] = {case["in"]["field"]: case["out"] for case in VECTORS["words"]}


def test_the_vectors_have_the_words_of_the_program() -> None:
    """Every word that the types name is in the shared list of its field, and no other."""
    assert {field: [*get_args(words)] for field, words in WORDS.items()} == TOLD


def test_the_text_has_the_outcomes() -> None:
    """The table of commands says what each comes to; `history` is replied to by pages."""
    told = {row[0]: [word for word in re.split(r"[^a-z_]+", row[2]) if word] for row in text_table("## 8. Commands")}
    assert [*told] == [*get_args(CommandType)]
    assert told.pop("history") == ["no", "ack", "page"]
    assert told.pop("auth") == [*get_args(control.OutcomeOfAuth)]
    assert told.pop("ping") == [*get_args(control.OutcomeOfPing)]
    assert told == {name: TOLD[f"{name}.outcome"] for name in told}


def test_the_text_has_the_choices_of_commands() -> None:
    """CMD.12 lists what a field that is a choice may hold, the default first."""
    rows = {row[0]: row[1] for row in text_table("**CMD.12 Fields.**")}
    for field in ("send.whenBusy", "cancel.ifUnknown", "steer.boundary", "steer.ifEnded"):
        choices = rows[field.partition(".")[2]].partition(";")[0]
        assert choices.replace("\\|", "|").split(" | ") == TOLD[field]


def test_the_text_has_the_words_of_events_and_views() -> None:
    """Where the text lists the states of a run, of a message and of a request, none is missing."""
    (statuses,) = re.findall(r'\*\*RUN.1 Shape.\*\*.+?status:([a-z"|]+)', TEXT)
    assert statuses.replace('"', "").split("|") == TOLD["run.status"]
    assert {"streaming", *(end["status"] for end in ENDS.values())} == {*TOLD["message.status"]}
    rows = {row[0]: row[1] for row in text_table("**EVENT.6 Written first.**")}
    assert re.findall(r"(\w+) {(?!id)", rows["run.requested"]) == TOLD["request.kind"]
    (outcomes,) = re.findall(r"outcome (\w+(?: \\\| \w+)+)", rows["run.resolved"])
    assert outcomes.split(" \\| ") == TOLD["run.resolved.outcome"]
    assert [*rows] == [*get_args(events.EventType)]


def test_events_have_the_types_that_are_listed() -> None:
    """The union of events and the list of their types are the same."""
    assert {get_args(get_type_hints(event)["type"])[0] for event in get_args(events.Event)} == events.EVENT_TYPES


@pytest.mark.parametrize("case", VECTORS["errors"], ids=lambda case: str(case["description"]))
def test_a_code_says_whether_to_try_again(case: Case) -> None:
    """An error is retryable where its code is, unless whoever tells it says otherwise."""
    code, told = case["in"]["code"], case["out"]
    assert (retry_of(code) is Retry.ITSELF) is told["itself"]
    assert CommandError(code, "no").retryable is told["retryable"]
    assert CommandError(code, "no", retryable=not told["retryable"]).retryable is not told["retryable"]


def test_the_text_has_the_codes() -> None:
    """The table of errors names every code of the program and of the vectors, and says of each whether to try again."""
    told = {Retry.NO: "no", Retry.LATER: "yes", Retry.ITSELF: "yes, itself"}
    assert {row[0]: row[2] for row in text_table("| **ERROR.1**")} == {
        code: told[retry] for code, retry in RETRIES.items()
    }
    assert [case["in"]["code"] for case in VECTORS["errors"] if case["rule"] == "ERROR.1"] == [*get_args(ErrorCode)]


def test_the_text_has_the_close_codes() -> None:
    """Every code of our own is in the text and in the vectors, and its range says whether to come back."""
    cells = [cell for row in text_table("| code | meaning |") for cell in row]
    told = {int(cell) for cell in cells if cell.isdigit()}
    own = {int(code) for code in CloseCode if code >= 4000}
    assert told == own
    assert own <= {case["in"]["code"] for case in VECTORS["close_codes"]}
    assert {code for code in own if may_reconnect(code)} == {code for code in own if code < 4500}
