"""How events, messages and runs look on a terminal. Pure: values in, text out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from holdfast.client.feed import Lagged
from holdfast.client.outcomes import CancelOutcome, RunResult, SteerOutcome
from holdfast.client.view import Reset
from holdfast.protocol import Event, Message, Part, Transcript
from holdfast.protocol.events import Cause, Request


def wire(item: Event | Reset | Lagged) -> Mapping[str, Any]:
    """A JSON object for what a feed yields; what is not an event of the log is named in its `type`."""
    match item:
        case Reset():
            return {"type": "reset", "position": item.position, "newEpoch": item.new_epoch}
        case Lagged():
            return {"type": "lagged", "missed": item.missed}
        case _:
            return item


_CAUSES: Final[Mapping[Cause, str]] = {
    "user": "",
    "prevented": "",
    "shutdown": "the server shut down",
    "superseded": "a newer message took its place",
    "abandoned": "nobody watched it any more",
    "deadline": "its time was over",
    "unknown_agent": "no server has its agent any more",
}
"""Why runs end; empty where who stopped it says it all."""


def event_text(event: Event) -> str:
    """What a person sees of an event: text as it is, everything else as a line in brackets; often nothing."""
    match event["type"]:
        case "message":
            return f"\n{event['message']['by']}: {plain(event['message']['parts'])}\n"
        case "run.queued":
            return f"[{event['runId']} waits at place {event['position']}]\n"
        case "run.started":
            return f"[{event['runId']} started, {event['agent']}]\n"
        case "run.chunk":
            return _chunk_text(event)
        case "run.requested":
            return f"\n[{event['runId']} asks: {request_text(event['request'])}]\n"
        case "run.resolved":
            return f"[{event['runId']} {event['outcome']}]\n"
        case "steer.accepted":
            return f"\n[{event['by']} steers {event['runId']}: {plain(event['parts'])}]\n"
        case "run.ended":
            return f"\n{ended_text(event['runId'], event['reason'], event)}\n"
        case _:
            return ""


def ended_text(run_id: str, reason: str, ending: Mapping[str, Any]) -> str:
    """One line about the end of a run."""
    error = f": {ending['error']['message']}" if ending.get("error") else ""
    return f"[{run_id} {reason}{_why(ending)}{error}]"


def result_text(result: RunResult) -> str:
    """The same line, of a run's result."""
    return ended_text(result.run_id, result.reason, asdict(result))


def _why(ending: Mapping[str, Any]) -> str:
    cause: Any = ending.get("cause") or ""  # that of a newer server may be another one
    why = _CAUSES.get(cause, _words(cause))
    if why:
        return f": {why}"
    if not ending.get("by"):
        return ""
    device = f" ({ending['device']})" if ending.get("device") else ""
    return f" by {ending['by']}{device}"


def _chunk_text(event: Mapping[str, Any]) -> str:
    match event["kind"]:
        case "text":
            return str(event.get("delta", ""))
        case "tool_call" if "input" in event:
            return f"\n[calls {event.get('name')} {compact(event['input'])}]\n"
        case "tool_result":
            result = event["error"] if "error" in event else compact(event.get("output"))
            return f"[result: {result}]\n"
        case _:
            return ""


def request_text(request: Request) -> str:
    """What a run asks for, as a question."""
    kind: str = request["kind"]  # that of a newer server may be another one
    match kind:
        case "approval":
            return f"Allow {request.get('name', 'it')} {compact(request.get('input'))}?"
        case "input":
            return request.get("prompt", "an answer?")
        case "tool":
            return f"{request.get('name')} with {compact(request.get('input'))}, of a device that can"
        case _:
            return f"something that this version does not know ({kind})."


def message_text(message: Message) -> str:
    """A message of the transcript with who said it."""
    who = message.get("by", "you") if message["role"] == "user" else "assistant"
    mark = "" if message["status"] == "complete" else f" [{message.get('reason', message['status'])}]"
    return f"{who}: {plain(message['parts'])}{mark}"


def plain(parts: Iterable[Part]) -> str:
    """The text of parts, other kinds in brackets."""
    shown: list[str] = []
    for part in parts:
        match part["kind"]:
            case "text":
                shown.append(str(part.get("text", "")))
            case "reasoning" | "tool_result":
                pass
            case "tool_call":
                shown.append(f"\n[calls {part.get('name')} {compact(part.get('input'))}]\n")
            case "steer":
                steered: Any = part.get("parts", [])
                shown.append(f"\n[{part.get('by')}: {plain(steered)}]\n")
            case _:
                shown.append(f"[{part.get('url', part['kind'])}]")
    return "".join(shown).strip()


def runs_table(transcript: Transcript) -> str:
    """The runs of a session as a table."""
    rows = [("RUN", "STATUS", "AGENT", "BY", "DEVICE")]
    for run in transcript.runs.values():
        info = run.info
        status = str(info.get("reason", "ended")) if info["status"] == "ended" else info["status"]
        rows.append((info["runId"], status, info.get("agent", "-"), info["by"], info["device"]))
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows with their columns aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def cancel_text(run_id: str, outcome: CancelOutcome) -> str:
    """What a cancel came to, as a sentence."""
    came: str = outcome.outcome  # that of a newer server may be another one
    match came:
        case "cancelled":
            return f"{run_id} is stopped."
        case "already_ended":
            return f"{run_id} had ended already ({outcome.reason})."
        case "unknown_run":
            return f"The session knows no run {run_id}."
        case "withdrawn":
            return f"{run_id} had become a steer; it is withdrawn."
        case "steered":
            return f"{run_id} had become a steer of {outcome.run_id}, which goes on."
        case _:
            return f"{run_id}: {_words(came)}."


def steer_text(run_id: str, outcome: SteerOutcome) -> str:
    """What a steer came to, as a sentence."""
    came: str = outcome.outcome  # that of a newer server may be another one
    match came:
        case "accepted":
            return f"{run_id} will take it (steer {outcome.steer_id})."
        case "already_ended":
            return f"{run_id} had ended already ({outcome.reason}); nothing was said to it."
        case "unknown_run":
            return f"The session knows no run {run_id}."
        case "sent":
            return f"The run had ended; it was sent as a message of its own ({outcome.run_id})."
        case _:
            return f"{run_id}: {_words(came)}."


def outcome_object(outcome: CancelOutcome | SteerOutcome) -> dict[str, Any]:
    """An outcome in the wire's names, without what is not known."""
    given = asdict(outcome)
    return {_camel(name): value for name, value in given.items() if value not in (None, [], False)}


def compact(value: object) -> str:
    """A JSON value on one line."""
    return json.dumps(value, ensure_ascii=False)


def _words(name: str) -> str:
    """A name of the wire that is not known here, as a person can read it."""
    return name.replace("_", " ")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
