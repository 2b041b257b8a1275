"""Commands as the wire has them, made of what a program gives. Pure; fields that are None are left out later."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import JsonValue

from holdfast.protocol import Part, Position
from holdfast.protocol.commands import IfUnknown, WhenBusy
from holdfast.protocol.events import Boundary, IfEnded

Fields: TypeAlias = dict[str, Any]


def new_id(prefix: str, size: int = 8) -> str:
    """An id that nobody else makes, of `size` random bytes."""
    return f"{prefix}-{secrets.token_hex(size)}"


def send(
    content: str | Sequence[Part],
    *,
    run_id: str,
    agent: str | None,
    when_busy: WhenBusy,
    seen: Position | None,
    when_abandoned_ms: int | None,
    deadline_ms: int | None,
    metadata: Mapping[str, JsonValue] | None,
    message_id: str | None,
) -> Fields:
    """A message for a run of its own."""
    return {
        "type": "send",
        "id": run_id,
        **_content(content),
        "agent": agent,
        "whenBusy": when_busy,
        "seen": seen,
        "whenAbandoned": None if when_abandoned_ms is None else {"cancelAfterMs": when_abandoned_ms},
        "deadlineMs": deadline_ms,
        "metadata": None if metadata is None else dict(metadata),
        "messageId": message_id,
    }


def cancel(run_id: str, *, seen: Position | None, if_unknown: IfUnknown) -> Fields:
    """Stops one run."""
    return {"type": "cancel", "id": new_id("k"), "runId": run_id, "seen": seen, "ifUnknown": if_unknown}


def cancel_all(*, up_to: Position, seen: Position | None) -> Fields:
    """Stops the runs of the session that were queued or started up to there."""
    return {"type": "cancel", "id": new_id("k"), "scope": "session", "upTo": up_to, "seen": seen}


def steer(
    content: str | Sequence[Part],
    *,
    run_id: str | None,
    boundary: Boundary,
    if_ended: IfEnded,
    seen: Position | None,
    steer_id: str | None = None,
) -> Fields:
    """Says something to a run that goes on."""
    return {
        "type": "steer",
        "id": steer_id or new_id("s"),
        "runId": run_id,
        **_content(content),
        "boundary": boundary,
        "ifEnded": if_ended,
        "seen": seen,
    }


def withdraw(steer_id: str) -> Fields:
    """Takes a steer back."""
    return {"type": "withdraw", "id": new_id("k"), "steerId": steer_id}


def answer(run_id: str, request_id: str, value: JsonValue) -> Fields:
    """Answers a request of a run."""
    return {"type": "answer", "id": new_id("k"), "runId": run_id, "requestId": request_id, "value": value}


def history(*, before: int | None, limit: int) -> Fields:
    """Asks for older messages."""
    return {"type": "history", "id": new_id("k"), "before": before, "limit": limit}


def auth(token: str) -> Fields:
    """Gives a newer token."""
    return {"type": "auth", "id": new_id("k"), "token": token}


def _content(content: str | Sequence[Part]) -> Fields:
    return {"text": content} if isinstance(content, str) else {"parts": list(content)}
