"""What follows from events for those who work on the runs here: a function of the log, and of who works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from holdfast.protocol.events import RunInfo
from holdfast.server.registry.state import RunState, SessionState
from holdfast.server.registry.table import RunPhase
from holdfast.server.registry.work import Owner, Settle, Sweep, Upkeep


@dataclass(frozen=True, slots=True)
class Start:
    """This node works on the run from now on: its latest `run.started` names it."""

    run: RunState
    view: RunInfo


@dataclass(frozen=True, slots=True)
class Ended:
    """The run has ended with this event, or (None) is no longer this node's: its agent stops."""

    run_id: str
    event: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Drop:
    """The log does not say what the worker was told: it stops without a word, and the sweep takes the run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the run's agent asked for was resolved by this event."""

    run_id: str
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Steered:
    """A steer of the run was accepted."""

    run_id: str
    steer_id: str
    boundary: str


@dataclass(frozen=True, slots=True)
class Unsteered:
    """A steer of the run was taken back."""

    run_id: str
    steer_id: str


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Events were missed or lost: the run goes on, and stands like this."""

    run_id: str
    view: RunInfo


Effect: TypeAlias = Start | Ended | Drop | Resolved | Steered | Unsteered | Reconcile | Settle | Sweep
"""For a worker, or (the last two) work that the session brings to itself."""


def effects(state: SessionState, events: Iterable[Mapping[str, Any]], *, node: str, working: set[str]) -> list[Effect]:
    """What follows from events that are in the log, with the state behind them.

    `working` are the runs that somebody works on here; those that start are added.
    """
    found: list[Effect] = []
    for event in events:
        run_id: str = event["runId"]
        works = run_id in working
        match event["type"]:
            case "run.started":
                run = state.runs.get(run_id)
                if run is None or event["node"] != node or run.attempt != event["attempt"]:
                    if works:  # taken over elsewhere
                        found.append(Ended(run_id, None))
                elif run.active:
                    working.add(run_id)
                    found.append(Start(run, state.transcript.runs[run_id].info))
            case "run.ended" if works:
                found.append(Ended(run_id, event))
            case "run.ended":
                run = state.runs.get(run_id)
                if run is not None and run.phase is RunPhase.STOPPING and run.node == node:
                    owner = Owner(run_id, run.node, run.attempt)
                    found.append(Settle(owner, stopped_after_ms=0, confirmed=True))
            case "run.resolved" if works:
                found.append(Resolved(run_id, event))
            case "steer.accepted" if works:
                found.append(Steered(run_id, event["steerId"], event["boundary"]))
            case "steer.withdrawn" if works:
                found.append(Unsteered(run_id, event["steerId"]))
            case _:
                """Concerns nobody here."""
    return found


def reconciled(state: SessionState, working: Mapping[Owner, bool], *, node: str) -> list[Effect]:
    """After events were missed: who works on what ended elsewhere stops, and what nobody works on is swept.

    `working` says of each who works here whether it was told already that its run has ended.
    """
    found: list[Effect] = []
    gone: set[str] = set()
    for owner, told in working.items():
        run_id = owner.run_id
        run = state.runs.get(run_id)
        if run is None or run.phase is RunPhase.CLOSED or Owner(run_id, run.node, run.attempt) != owner:
            found.append(Ended(run_id, None))
        elif run.phase is RunPhase.STOPPING:
            found.append(Ended(run_id, {"reason": run.reason}))
        elif told:
            # The store lost the end of the run. An agent that was stopped does not go on: the sweep takes it.
            found.append(Drop(run_id))
            gone.add(run_id)
        else:
            found.append(Reconcile(run_id, state.transcript.runs[run_id].info))
    known = {owner.run_id for owner in working} - gone
    mine = (run for run in state.runs.values() if run.node == node and run.phase is not RunPhase.CLOSED)
    if any(run.run_id not in known for run in mine):
        found.append(Sweep())
    return found


def promotable(state: SessionState, *, agents: Iterable[str], accepting: bool) -> Upkeep | None:
    """The work that starts the queue's head, where a node with these agents can."""
    if accepting and state.queue and state.main is None and state.runs[state.queue[0]].agent in agents:
        return Upkeep()
    return None


def abandonable(state: SessionState) -> bool:
    """Whether an open run ends when nobody watches for long enough."""
    return any("abandonMs" in run.terms for run in state.open_runs())
