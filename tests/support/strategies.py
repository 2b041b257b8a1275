"""Values and logs for the protocol's property tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from holdfast.protocol.values import MAX_INTEGER
from tests.support.vectors import ENDS, ends_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
kinds = st.sampled_from(["text", "text", "reasoning", "tool_call", "data", "novel"])
choices = st.tuples(st.integers(0, 11), st.integers(0, 3), kinds, texts, st.booleans())


class LogMaker:
    """Turns arbitrary choices into a log that a server could have written, event by event."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._runs: dict[str, dict[str, Any]] = {}
        self._ids = 0
        self._last: str | None = None

    def take(self, choice: tuple[int, int, str, str, bool]) -> None:
        """Adds the events that a choice stands for, if they are possible now."""
        what, which, kind, text, flag = choice
        run_id = f"r{which}"
        run = self._runs.get(run_id)
        if run is None:
            self._enter(run_id, what, text)
        elif run["status"] == "queued":
            self._queued(run_id, run, what, text)
        elif run["status"] == "active":
            self._active(run_id, run, what, kind, text, flag=flag)

    def _emit(self, name: str, /, **fields: Any) -> None:
        seq = len(self.events) + 1
        self.events.append({"type": name, "seq": seq, "at": 1000 + seq // 3, **fields})

    def _new(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"

    def _user(self, run_id: str, text: str) -> dict[str, Any]:
        parts = [{"kind": "text", "text": text}]
        return {"id": f"u~{run_id}", "role": "user", "parts": parts, "by": "ana", "device": "phone", "at": 1}

    def _enter(self, run_id: str, what: int, text: str) -> None:
        message = self._user(run_id, text)
        if what == 0:
            self._emit("run.ended", runId=run_id, reason="cancelled", cause="prevented", by="ana", returned=[])
            self._runs[run_id] = {"status": "ended"}
        elif what < 5:
            fields = {"agent": "demo", "by": "ana", "device": "phone", "message": message}
            self._emit("run.queued", runId=run_id, position=1, **fields)
            self._runs[run_id] = {"status": "queued", "message": message, "steers": []}
        else:
            self._runs[run_id] = {"message": message, "steers": []}
            self._start(run_id, self._runs[run_id])

    def _start(self, run_id: str, run: dict[str, Any]) -> None:
        message = run.pop("message")
        self._emit("message", message=message, runId=run_id, after=self._last)
        self._last = f"a~{run_id}"
        run |= {"status": "active", "parts": [], "requests": [], "attempt": 0}
        self._attempt(run_id, run)

    def _attempt(self, run_id: str, run: dict[str, Any]) -> None:
        run["attempt"] += 1
        run["requests"] = []
        fields: Mapping[str, Any] = {"agent": "demo", "by": "ana", "device": "phone", "node": "n"}
        names = {"messageId": f"a~{run_id}", "after": f"u~{run_id}"}
        self._emit("run.started", runId=run_id, attempt=run["attempt"], **names, **fields)

    def _queued(self, run_id: str, run: dict[str, Any], what: int, text: str) -> None:
        if what < 2:
            self._end(run_id, run, _of("queued", len(text)), kept=None)
        elif what < 5:
            self._steer(run_id, run, text)
        else:
            self._start(run_id, run)

    def _active(self, run_id: str, run: dict[str, Any], what: int, kind: str, text: str, *, flag: bool) -> None:
        match what:
            case 0:
                reason = _of("running", len(text))
                self._end(run_id, run, reason, kept=len(text) if flag and reason == "cancelled" else None)
            case 1:
                self._attempt(run_id, run)
            case 2:
                run["requests"].append(self._new("q"))
                self._emit("run.requested", runId=run_id, request={"id": run["requests"][-1], "kind": "input"})
            case 3 if run["requests"]:
                request_id = run["requests"].pop(0)
                self._emit("run.resolved", runId=run_id, requestId=request_id, outcome="answered", value=text)
            case 4:
                self._steer(run_id, run, text)
            case 5 if run["steers"]:
                steer_id = run["steers"].pop(0)
                if flag:
                    self._emit("steer.withdrawn", runId=run_id, steerId=steer_id)
                else:
                    kept = {"kept": self._kept(run, len(text))} if text else {}
                    self._emit("steer.applied", runId=run_id, steerId=steer_id, **kept)
                    run["parts"].append("steer")
            case 6:
                self._emit("run.dreamt", runId=run_id, of=text)
            case _:
                self._chunk(run_id, run, kind, text, flag=flag)

    def _steer(self, run_id: str, run: dict[str, Any], text: str) -> None:
        run["steers"].append(self._new("s"))
        fields = {"boundary": "now", "ifEnded": "return", "by": "ana", "device": "phone"}
        parts = [{"kind": "text", "text": text}]
        self._emit("steer.accepted", runId=run_id, steerId=run["steers"][-1], parts=parts, **fields)

    def _chunk(self, run_id: str, run: dict[str, Any], kind: str, text: str, *, flag: bool) -> None:
        parts = run["parts"]
        if kind not in parts or flag:
            parts.append(kind)
        number = len(parts) - 1 - parts[::-1].index(kind)
        match kind:
            case "tool_call":
                names = {"callId": f"c{number}", "name": "f"}
                fields: dict[str, Any] = {**names, "input": {"a": text}} if len(text) > 5 else {**names, "delta": text}
            case "data":
                fields = {"name": "n", "value": text}
            case "novel":
                fields = {"delta": text if len(text) % 2 else [text], "shade": text}
            case _:
                fields = {"delta": text}
        done = {"done": True} if len(text) == 3 else {}
        self._emit("run.chunk", runId=run_id, part=number, kind=kind, **fields, **done)

    def _kept(self, run: dict[str, Any], length: int) -> list[dict[str, int]]:
        return [
            {"part": number, "length": length}
            for number, kind in enumerate(run["parts"])
            if kind in ("text", "reasoning")
        ]

    def _end(self, run_id: str, run: dict[str, Any], reason: str, *, kept: int | None) -> None:
        nothing: list[Any] = []
        returned = [{"steerId": steer_id, "parts": nothing} for steer_id in run["steers"]]
        cut = {} if kept is None else {"kept": self._kept(run, kept)[:-1]}
        self._emit("run.ended", runId=run_id, reason=reason, returned=returned, **cut)
        if ENDS[reason]["settles"] and run["status"] == "active":
            self._emit("run.settled", runId=run_id, stoppedAfterMs=1, confirmed=True)
        run["status"] = "ended"


def _of(state: str, number: int) -> str:
    """One of the reasons for which a run of this state can end."""
    reasons = ends_of(state)
    return reasons[number % len(reasons)]


def _log(chosen: list[tuple[int, int, str, str, bool]]) -> list[dict[str, Any]]:
    maker = LogMaker()
    for choice in chosen:
        maker.take(choice)
    return maker.events


logs = st.lists(choices, max_size=40).map(_log)
"""Logs of up to four runs, with a bit of everything in them, unknown events and kinds included."""


def _session_step(choice: tuple[int, int, str]) -> tuple[Any, ...]:
    what, which, kind = choice
    run_id = f"r{which}"
    busy = ("queue", "queue", "interrupt", "alongside")[what % 4]
    match what:
        case 0 | 1 | 2 | 3:
            return ("send", "a", "ana/phone", run_id, busy)
        case 4:
            return ("cancel", "a", "ana/phone", f"k{which}", run_id)
        case 5 | 6:
            return ("steer", "a", "bo/tablet", f"s{which}{kind}", run_id)
        case 7:
            return ("boundary", "a", run_id)
        case 8:
            return ("finish", "a", run_id)
        case 9:
            return ("settle", "a", run_id)
        case 10:
            return ("call_tool", "a", run_id)
        case 11:
            return ("request", "a", run_id)
        case _:
            return ("produce", "a", run_id, kind)


session_steps = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from([1, 1, 2, 3]), st.sampled_from(["text", "text", "reasoning"])),
    max_size=25,
).map(lambda choices: [_session_step(choice) for choice in choices])
"""Steps of a `two_writers.SharedLog` with up to three runs on node `a`, which is to work after each."""
