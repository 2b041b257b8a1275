"""How runs end: what each reason and each cause means, once for the server and for every client.

`protocol/vectors/ends.json` says the same in every language. What depends on how a run has ended looks here, and has
no list of reasons of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from holdfast.protocol.events import Cause, EndReason, MessageStatus

Unended: TypeAlias = Literal["unknown", "queued", "running", "waiting"]
"""Where a run stands before its end; `unknown`: it was never heard of."""
AgentReason: TypeAlias = Literal["completed", "failed"]
"""The ends that a run's agent brings about itself."""


@dataclass(frozen=True, slots=True)
class End:
    """What follows from an end."""

    of: tuple[Unended, ...]
    """Which runs can end so."""
    status: MessageStatus
    """Of the run's message from then on."""
    sends_steers: bool
    """What it never took of steers with `ifEnded` "send" becomes the next messages; all else comes back."""
    settles: bool
    """It stops the agent, where one works on the run: `run.settled` tells when that has stopped."""
    causes: tuple[Cause, ...] = ()
    """Why it can end so; empty where the reason says it all."""
    exit_code: int = 1
    """Of a program that followed the run to its end: 0 where all is well, 130 where somebody stopped it."""


_STARTED: Final = ("running", "waiting")

ENDS: Final[Mapping[EndReason, End]] = {
    "completed": End(_STARTED, "complete", sends_steers=True, settles=False, exit_code=0),
    "cancelled": End(
        ("unknown", "queued", *_STARTED),
        "interrupted",
        sends_steers=False,
        settles=True,
        causes=("user", "superseded", "abandoned", "shutdown", "prevented", "unknown_agent"),
        exit_code=130,
    ),
    "failed": End(_STARTED, "error", sends_steers=True, settles=False),
    "expired": End(("queued", *_STARTED), "interrupted", sends_steers=True, settles=True, causes=("deadline",)),
    "lost": End(_STARTED, "interrupted", sends_steers=False, settles=False),
}

UNKNOWN_END: Final = End((), "interrupted", sends_steers=False, settles=False)
"""What a reader makes of a reason newer than itself (GROW.5)."""


def end_of(reason: str) -> End:
    """What an end of this reason means; `UNKNOWN_END` where this version does not know it."""
    return ENDS.get(cast("EndReason", reason), UNKNOWN_END)
