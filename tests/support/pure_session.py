"""One session in one pair of hands: a state, a clock, and an archive that is asked as the actor asks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast

from holdfast.protocol.commands import Answer, Cancel, Send, Steer, Withdraw, parse_command
from holdfast.protocol.events import Message
from holdfast.server.registry import (
    AgentTraits,
    Ask,
    Chunk,
    ClientCommand,
    Context,
    Decision,
    Finish,
    OpenRequest,
    Owner,
    Record,
    RunPhase,
    SessionState,
    Settle,
    TakeSteers,
    Work,
    compact,
    compacted,
    decide,
    fold,
    keys,
    load,
)
from tests.support.memory_log import through_json

NOW: Final = 1_000_000
AGENTS: Final = {"solo": AgentTraits(), "phoenix": AgentTraits(restartable=True)}


def command(kind: str, command_id: str, **fields: Any) -> ClientCommand:
    """A command as it comes from a client."""
    parsed = parse_command({"type": kind, "id": command_id, **fields})
    assert isinstance(parsed, (Send, Cancel, Steer, Withdraw, Answer)), "a command that may add events"
    return parsed


class Archive:
    """What compactions have written: records by key, as the store keeps them."""

    def __init__(self) -> None:
        self.records: dict[str, Any] = {}
        self.messages: dict[str, Message] = {}

    def read(self, state: SessionState, ask: Ask) -> dict[str, Any]:
        """The records that the decision of `ask` needs, and no others."""
        return {key: self.records[key] for key in keys(state, ask) if key in self.records}


class PureSession:
    """A session whose every decision is accepted at once."""

    def __init__(self, **context: Any) -> None:
        self.state = SessionState("e1")
        self.context = Context(now=NOW, node="n1", agents=AGENTS, **context)
        self.archive = Archive()
        self.records: list[Record] = []
        self.careful = True
        """Whether to look that refused commands change nothing, which costs as much as the state is large."""

    def set(self, **context: Any) -> None:
        """Changes what deciding may look at."""
        self.context = replace(self.context, **context)

    def ask(self, kind: str, command_id: str, *, client: str = "ana/phone", **fields: Any) -> dict[str, Any]:
        """A client's command, and its reply. Raises CommandError, after looking that nothing was changed."""
        principal, device = client.split("/")
        ask = Ask(principal, device, command(kind, command_id, **fields))
        context = replace(self.context, archive=self.archive.read(self.state, ask))
        before = dump(self.state) if self.careful else None
        try:
            decision = decide(self.state, ask, context)
        except Exception:
            assert not self.careful or dump(self.state) == before, "a refused command leaves the state as it was"
            raise
        self.records += decision.records
        assert decision.reply is not None, "every command has a reply"
        return cast("dict[str, Any]", decision.reply)

    def send(self, run_id: str, **fields: Any) -> dict[str, Any]:
        """A message whose run has the command's id."""
        return self.ask("send", run_id, **{"text": f"do {run_id}", **fields})

    def work(self, work: Work) -> Decision:
        """A piece of work that is no command."""
        decision = decide(self.state, work, self.context)
        self.records += decision.records
        return decision

    def owner(self, run_id: str) -> Owner:
        """Of the run as it is now."""
        run = self.state.runs[run_id]
        return Owner(run_id, run.node, run.attempt)

    def say(self, run_id: str, text: str, kind: str = "text", **fields: Any) -> Decision:
        """The run's agent says something."""
        return self.work(Chunk.of(self.owner(run_id), kind, {"delta": text, **fields}))

    def request(self, run_id: str, request_id: str, **fields: Any) -> Decision:
        """The run's agent asks something."""
        request: Any = {"id": request_id, "kind": "input", "prompt": "?", **fields}
        return self.work(OpenRequest(self.owner(run_id), request))

    def take(self, run_id: str) -> list[str]:
        """The run's agent takes its steers."""
        return [steer["steerId"] for steer in self.work(TakeSteers(self.owner(run_id))).steers]

    def finish(self, run_id: str, reason: str = "completed", **fields: Any) -> Decision:
        """The run's agent is done."""
        ended: Any = reason
        return self.work(Finish(self.owner(run_id), ended, **fields))

    def settle(self, run_id: str) -> Decision:
        """The run's agent has stopped."""
        return self.work(Settle(self.owner(run_id), 5, confirmed=True))

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The events of these types, or all."""
        return [
            cast("dict[str, Any]", record.event)
            for record in self.records
            if not names or record.event["type"] in names
        ]

    def last(self) -> dict[str, Any]:
        """The last event."""
        return self.events()[-1]

    def main(self) -> str | None:
        """The run that makes the session busy."""
        return self.state.main

    def phase(self, run_id: str) -> RunPhase:
        """Where the run stands."""
        return self.state.runs[run_id].phase

    def texts(self, run_id: str) -> list[str]:
        """The text parts of a run's message."""
        message = next(m for m in self.state.transcript.messages() if m.get("runId") == run_id and m["role"] != "user")
        return [str(part["text"]) for part in message["parts"] if part["kind"] in ("text", "reasoning")]

    def compact(self, *, window_ms: int = 0) -> None:
        """Archives what has ended, and lets it go."""
        compaction = compact(self.state, now=self.context.now, replay_window_ms=window_ms)
        self.archive.records |= through_json(compaction.records)
        self.archive.messages |= {message["id"]: message for message in compaction.messages}
        self.checkpoint: Mapping[str, Any] = through_json(compaction.checkpoint)
        compacted(self.state, compaction)

    def reopen(self) -> None:
        """Loads the last checkpoint, and folds what came behind it: what another process would know."""
        state = load(through_json(self.checkpoint))
        for record in self.records:
            if record.event["seq"] > state.seq:
                fold(state, Record(*through_json(list(record))))
        self.state = state


def dump(state: SessionState) -> Any:
    """All there is to a state, as plain values."""
    compaction = compact(state, now=0, replay_window_ms=10**12)
    runs = [run for run in state.runs.values() if run.run_id in compaction.run_ids]
    closed = [(run.run_id, run.phase.value, run.reason, run.cause, run.ended_seq, run.terms) for run in runs]
    steers = sorted((key, steer.run_id, steer.status.value) for key, steer in state.steers.items())
    return through_json([compaction.checkpoint, compaction.messages, closed, steers])
