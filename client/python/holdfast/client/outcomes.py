"""What commands come to, as values with Python names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from holdfast.protocol import Ack, Message
from holdfast.protocol.control import OutcomeOfAnswer, OutcomeOfCancel, OutcomeOfSteer, OutcomeOfWithdraw
from holdfast.protocol.events import EndReason, Failure, ReturnedSteer


@dataclass(frozen=True, slots=True)
class CancelOutcome:
    """What a cancel came to. An ended or unknown run is an outcome and not an error.

    `withdrawn` and `steered` tell of an id that had become a steer (`run_id` is then the run it went into).
    `run_ids` are the runs that a cancel of the whole session ended; `seq` is that of the last `run.ended`.
    """

    outcome: OutcomeOfCancel
    run_id: str | None = None
    run_ids: list[str] = field(default_factory=list[str])
    reason: EndReason | None = None
    seq: int | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class SteerOutcome:
    """What a steer came to: `accepted` by the run, or `sent` as a message of its own (`run_id` is its run)."""

    outcome: OutcomeOfSteer
    steer_id: str
    run_id: str | None = None
    reason: EndReason | None = None
    seq: int | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class WithdrawOutcome:
    """What taking back a steer came to."""

    outcome: OutcomeOfWithdraw
    seq: int | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class AnswerOutcome:
    """What an answer came to; of two devices' answers to one request, one is `accepted`."""

    outcome: OutcomeOfAnswer
    seq: int | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run after its end.

    `text` is all text of the assistant's message; `message` is None for a run that never started. `returned`, `usage`,
    `cause` and `error` are empty for a run that ended so long ago that a snapshot no longer names it. `by` and
    `device` tell who ended it, where somebody did and this client was told by the event itself.
    """

    run_id: str
    reason: EndReason
    text: str
    message: Message | None
    cause: str | None = None
    by: str | None = None
    device: str | None = None
    error: Failure | None = None
    usage: dict[str, JsonValue] | None = None
    returned: list[ReturnedSteer] = field(default_factory=list[ReturnedSteer])


def cancel_outcome(ack: Ack) -> CancelOutcome:
    """The outcome in the acknowledgement of a `cancel`."""
    return CancelOutcome(
        outcome=cast("Any", ack["outcome"]),
        run_id=ack.get("runId"),
        run_ids=ack.get("runIds", []),
        reason=ack.get("reason"),
        seq=ack.get("seq"),
        duplicate="duplicate" in ack,
    )


def steer_outcome(ack: Ack) -> SteerOutcome:
    """The outcome in the acknowledgement of a `steer`."""
    return SteerOutcome(
        outcome=cast("Any", ack["outcome"]),
        steer_id=ack["id"],
        run_id=ack.get("runId"),
        reason=ack.get("reason"),
        seq=ack.get("seq"),
        duplicate="duplicate" in ack,
    )


def withdraw_outcome(ack: Ack) -> WithdrawOutcome:
    """The outcome in the acknowledgement of a `withdraw`."""
    return WithdrawOutcome(cast("Any", ack["outcome"]), ack.get("seq"), "duplicate" in ack)


def answer_outcome(ack: Ack) -> AnswerOutcome:
    """The outcome in the acknowledgement of an `answer`."""
    return AnswerOutcome(cast("Any", ack["outcome"]), ack.get("seq"), "duplicate" in ack)
