"""The table of ends: the program, the shared vectors and the text say the same of every reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, get_args

import pytest

from holdfast.protocol.ends import ENDS, AgentReason, Unended, end_of
from holdfast.protocol.events import Cause, EndReason, RunStatus
from holdfast.protocol.transcript import Transcript
from tests.support.vectors import ENDS as TOLD
from tests.support.vectors import TEXT, VECTORS, Case, ends_of, text_table

REASONS: Final = get_args(EndReason)


@pytest.mark.parametrize("case", VECTORS["ends"], ids=lambda case: str(case["description"]))
def test_an_end_means_what_the_vectors_say(case: Case) -> None:
    """Every column of a reason's row is that of the vector; a reason that is not known has one too."""
    end = end_of(case["in"]["reason"])
    assert {
        "of": [*end.of],
        "status": end.status,
        "steers": "sent" if end.sends_steers else "returned",
        "settles": end.settles,
        "causes": [*end.causes],
        "exitCode": end.exit_code,
    } == case["out"]


@pytest.mark.parametrize("case", VECTORS["ends"], ids=lambda case: str(case["description"]))
def test_a_message_has_the_status_of_its_end(case: Case) -> None:
    """Folding the end of a run leaves its message as the table says, with the reason as it came."""
    transcript = Transcript()
    user: dict[str, Any] = {"id": "u", "role": "user", "parts": [], "by": "ana", "device": "phone", "at": 1}
    started = {"agent": "x", "by": "ana", "device": "phone", "messageId": "a", "after": "u", "attempt": 1, "node": "n"}
    reason: str = case["in"]["reason"]
    events: list[Mapping[str, Any]] = [
        {"type": "message", "message": user, "after": None},
        {"type": "run.started", **started},
        {"type": "run.ended", "reason": reason, "returned": []},
    ]
    for seq, event in enumerate(events, start=1):
        transcript.apply({**event, "seq": seq, "at": seq, "runId": "r"})
    message: Any = transcript.messages()[1]
    assert (message["status"], message["reason"]) == (case["out"]["status"], reason)


def test_every_reason_is_in_the_vectors() -> None:
    """No reason of the program is missing there, and the one that stands for all others is none of its own."""
    assert [*TOLD] == [*ENDS] == [*REASONS]
    assert [case["in"]["reason"] in REASONS for case in VECTORS["ends"] if case["rule"] == "GROW.5"] == [False]


def test_the_text_has_the_same_table() -> None:
    """A reader of the text alone learns of every end what the vectors say."""
    assert {row[0]: row[2:] for row in text_table("**LIFE.9 Ends.**")} == {
        reason: [
            ", ".join(end["of"]),
            end["status"],
            end["steers"],
            "yes" if end["settles"] else "no",
            ", ".join(end["causes"]),
            str(end["exitCode"]),
        ]
        for reason, end in TOLD.items()
    }


def test_the_drawing_has_every_end() -> None:
    """The picture of a run's life names what can follow a start, what ends a queue, and what is settled."""
    drawing = TEXT[TEXT.index("## 16.") : TEXT.index("**LIFE.1")]
    settled = [reason for reason, end in TOLD.items() if end["settles"]]
    assert re.findall(r"ended \((.+)\)\n", drawing) == [" | ".join(ends_of("running"))]
    assert re.findall(r"┌─+ (.+?) ─+┐", drawing) == [" | ".join(ends_of("queued"))]
    assert re.findall(r"a started run that ended (.+)\)", drawing) == [" or ".join(settled)]


def test_the_table_hangs_together() -> None:
    """What an agent works on can end in either state alike; each cause is of one end; agents do not stop themselves."""
    for end in ENDS.values():
        assert {"running", "waiting"} <= {*end.of}
        assert end.exit_code == 0 or end.status != "complete"
    causes = [cause for end in ENDS.values() for cause in end.causes]
    assert sorted(causes) == sorted(get_args(Cause))
    assert {*get_args(Unended)} == ({*get_args(RunStatus)} - {"ended"}) | {"unknown"}
    for reason in get_args(AgentReason):
        assert not ENDS[reason].settles
        assert not ENDS[reason].causes
