"""The table of a run's life: each cell, each hole, and the text that describes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from holdfast.protocol.events import EVENT_TYPES
from holdfast.server.errors import IllegalEventError
from holdfast.server.registry import ACTIVE, OPEN, TABLE, Record, RunPhase, fold
from tests.support.pure_session import PureSession, dump
from tests.support.vectors import ENDS, TEXT

SYMBOLS: Final = sorted(
    (EVENT_TYPES - {"run.ended", "run.resolved"})
    | {f"run.ended:{reason}" for reason in ENDS}
    | {"run.resolved:some", "run.resolved:last"}
)
_MESSAGE: Final[Mapping[str, Any]] = {"id": "m", "role": "user", "parts": [], "by": "ana", "device": "phone", "at": 1}
_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "message": {"message": _MESSAGE, "after": None},
    "run.queued": {"agent": "solo", "by": "ana", "device": "phone", "message": _MESSAGE, "position": 1},
    "run.started": {
        "agent": "solo", "by": "ana", "device": "phone", "messageId": "a~r", "after": "m", "attempt": 2, "node": "n2",
    },
    "run.chunk": {"part": 0, "kind": "text", "delta": "x"},
    "run.requested": {"request": {"id": "q9", "kind": "input", "prompt": "?"}},
    "run.resolved": {"requestId": "q1", "outcome": "answered"},
    "steer.accepted": {
        "steerId": "s9", "parts": [], "boundary": "now", "ifEnded": "return", "by": "ana", "device": "phone",
    },
    "steer.applied": {"steerId": "s"},
    "steer.withdrawn": {"steerId": "s"},
    "run.ended": {"returned": []},
    "run.settled": {"stoppedAfterMs": 1, "confirmed": True},
}  # fmt: skip


def _queued() -> PureSession:
    session = PureSession()
    session.send("main")
    session.send("r")
    session.ask("steer", "s", runId="r", text="rather")
    return session


def _running() -> PureSession:
    session = PureSession()
    session.send("r")
    session.ask("steer", "s", text="rather")
    return session


def _waiting(requests: int) -> PureSession:
    session = _running()
    for number in range(requests):
        session.request("r", f"q{number + 1}")
    return session


def _stopping() -> PureSession:
    session = _running()
    session.ask("cancel", "k", runId="r")
    return session


def _closed() -> PureSession:
    session = _stopping()
    session.settle("r")
    return session


SESSIONS: Final[Mapping[RunPhase, Callable[[], PureSession]]] = {
    RunPhase.UNKNOWN: PureSession,
    RunPhase.QUEUED: _queued,
    RunPhase.RUNNING: _running,
    RunPhase.WAITING: lambda: _waiting(1),
    RunPhase.STOPPING: _stopping,
    RunPhase.CLOSED: _closed,
}


def event_of(symbol: str, seq: int) -> dict[str, Any]:
    """The next event of the run `r` that the symbol stands for."""
    kind, _, detail = symbol.partition(":")
    reason = {"reason": detail} if kind == "run.ended" else {}
    return {"type": kind, "seq": seq, "at": 2_000_000, "runId": "r", **_FIELDS[kind], **reason}


def take(session: PureSession, symbol: str) -> None:
    """Folds the event that the symbol stands for."""
    event: Any = event_of(symbol, session.state.seq + 1)
    fold(session.state, Record(event))


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("phase", list(RunPhase))
def test_every_cell(phase: RunPhase, symbol: str) -> None:
    """An event moves the run as the table says; where it has no cell it is illegal and changes nothing."""
    session = _waiting(2) if symbol == "run.resolved:some" and phase is RunPhase.WAITING else SESSIONS[phase]()
    expected = TABLE[phase].get(symbol)
    before, seq = dump(session.state), session.state.seq
    if expected is None:
        with pytest.raises(IllegalEventError, match="r while it is"):
            take(session, symbol)
        assert dump(session.state) == before
    else:
        take(session, symbol)
        run = session.state.runs.get("r")
        assert (RunPhase.UNKNOWN if run is None else run.phase) is expected
        assert session.state.seq == seq + 1


def test_a_gap_is_illegal() -> None:
    """An event that is not the next one changes nothing."""
    session = _running()
    before = dump(session.state)
    for seq in (session.state.seq, session.state.seq + 2):
        event: Any = event_of("run.chunk", seq)
        with pytest.raises(IllegalEventError, match="does not follow"):
            fold(session.state, Record(event))
    assert dump(session.state) == before


def test_an_unknown_event_is_its_seq() -> None:
    """A type of a later version means nothing here, and the log goes on behind it."""
    session = _running()
    event: Any = {"type": "run.dreamt", "seq": session.state.seq + 1, "at": 2_000_000, "runId": "r", "of": "sheep"}
    fold(session.state, Record(event))
    assert (session.state.seq, session.state.at) == (event["seq"], 2_000_000)
    assert session.state.runs["r"].phase is RunPhase.RUNNING


def test_phases_are_sorted_by_what_they_mean() -> None:
    """Active runs are open; what is neither queued nor active cannot go on."""
    assert ACTIVE < OPEN
    assert {RunPhase.QUEUED} == OPEN - ACTIVE
    for phase in set(RunPhase) - OPEN - {RunPhase.UNKNOWN}:
        assert set(TABLE[phase]) <= {"run.settled"}


@pytest.mark.parametrize("reason", ENDS)
def test_what_an_end_leads_to(reason: str) -> None:
    """A run can end so in the states that the shared table names; its agent is waited for where that says so."""
    end = ENDS[reason]
    for phase in RunPhase:
        to = TABLE[phase].get(f"run.ended:{reason}")
        if phase.value not in end["of"]:
            assert to is None
        else:
            assert to is (RunPhase.STOPPING if end["settles"] and phase in ACTIVE else RunPhase.CLOSED)


def test_a_terminal_is_the_end() -> None:
    """From no phase that an end leads to does anything but `run.settled` lead away, and that only once."""
    ends = {to for cells in TABLE.values() for symbol, to in cells.items() if symbol.startswith("run.ended")}
    assert ends == {RunPhase.STOPPING, RunPhase.CLOSED}
    assert TABLE[RunPhase.STOPPING] == {"run.settled": RunPhase.CLOSED}
    assert TABLE[RunPhase.CLOSED] == {}


# The text of the protocol has the same table, in the words of readers: its "ended" is both halves of the end.

_NAMES: Final = {
    RunPhase.UNKNOWN: "unknown",
    RunPhase.QUEUED: "queued",
    RunPhase.RUNNING: "running",
    RunPhase.WAITING: "waiting",
    RunPhase.STOPPING: "ended",
    RunPhase.CLOSED: "settled",
}


def _text_table() -> dict[tuple[str, str], str]:
    rows = re.findall(r"^\|(.+)\|$", TEXT[TEXT.index("**LIFE.1 Table.**") :].split("\n- **", 1)[0], flags=re.M)
    header, _, *lines = ([cell.strip() for cell in row.split("|")] for row in rows)
    return {
        (line[0], symbol.replace("`", "")): cell
        for line in lines
        for symbol, cell in zip(header[1:], line[1:], strict=True)
        if cell
    }


def _column(symbol: str, phase: RunPhase) -> str | None:
    kind = symbol.partition(":")[0]
    if kind == "message":
        return None  # the text has it with the start that follows it
    if kind == "run.started" and phase in (RunPhase.UNKNOWN, RunPhase.QUEUED):
        return "message+run.started"
    return "steer.*" if kind.startswith("steer.") else kind


def test_the_text_has_the_same_table() -> None:
    """Every cell of the program is in the protocol's text with the phase it leads to, and every cell there is here."""
    described = _text_table()
    used: set[tuple[str, str]] = set()
    for phase, cells in TABLE.items():
        for symbol, to in cells.items():
            column = _column(symbol, phase)
            if column is None:
                continue
            place = (_NAMES[phase], column)
            name = "ended" if symbol.startswith("run.ended") else _NAMES[to]
            assert name in described[place], f"{place}: {described[place]} for {symbol} → {name}"
            if phase in (RunPhase.UNKNOWN, RunPhase.QUEUED) and symbol.startswith("run.ended"):
                word = "prevented" if phase is RunPhase.UNKNOWN else symbol.partition(":")[2]
                assert word in described[place]
            used.add(place)
    assert used == set(described)


def test_fields_for_every_event() -> None:
    """The events of this test are those of the protocol: none is left out of the table's check."""
    assert set(_FIELDS) == EVENT_TYPES
    assert {symbol.partition(":")[0] for symbol in SYMBOLS} == EVENT_TYPES
