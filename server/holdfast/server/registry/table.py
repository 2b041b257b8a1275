"""The life of a run, as a table: phase × event → next phase. A cell that is not there is the error.

    queued ──► running ⇄ waiting ──► ended ──► settled
       └─────────────────────────────► ended

`STOPPING` and `CLOSED` are the two halves of "ended": a run whose end stops its agent is STOPPING until `run.settled`
says whether the work has stopped; every other end closes it at once. Which ends are which, and what can end how, says
`holdfast.protocol.ends`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from holdfast.protocol.ends import ENDS
from holdfast.server.errors import IllegalEventError


class RunPhase(Enum):
    """Where a run stands."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPING = "stopping"
    CLOSED = "closed"

    # Members are singletons; the hash that Enum has in Python would be looked up several times for every chunk.
    __hash__ = object.__hash__


ACTIVE: Final = frozenset({RunPhase.RUNNING, RunPhase.WAITING})
"""An agent works on the run."""
OPEN: Final = frozenset({RunPhase.QUEUED, RunPhase.RUNNING, RunPhase.WAITING})
"""The run has no terminal yet."""

_U, _Q, _R, _W, _S, _C = RunPhase


def _ends(phase: RunPhase) -> dict[str, RunPhase]:
    """The cells for the ends of a run of this phase: `run.ended:` and the reason."""
    return {
        f"run.ended:{reason}": _S if end.settles and phase in ACTIVE else _C
        for reason, end in ENDS.items()
        if phase.value in end.of
    }


TABLE: Final[Mapping[RunPhase, Mapping[str, RunPhase]]] = {
    RunPhase.UNKNOWN: {
        "message": _U,
        "run.queued": _Q,
        "run.started": _R,
        **_ends(RunPhase.UNKNOWN),  # prevented: entered as ended before it was ever sent
    },
    RunPhase.QUEUED: {
        "message": _Q,
        "run.started": _R,
        "steer.accepted": _Q,
        "steer.withdrawn": _Q,
        **_ends(RunPhase.QUEUED),
    },
    RunPhase.RUNNING: {
        "run.started": _R,  # another attempt, by a node that took the run over
        "run.chunk": _R,
        "run.requested": _W,
        "steer.accepted": _R,
        "steer.applied": _R,
        "steer.withdrawn": _R,
        **_ends(RunPhase.RUNNING),
    },
    RunPhase.WAITING: {
        "run.started": _R,
        "run.chunk": _W,
        "run.requested": _W,
        "run.resolved:some": _W,
        "run.resolved:last": _R,
        "steer.accepted": _W,
        "steer.applied": _W,
        "steer.withdrawn": _W,
        **_ends(RunPhase.WAITING),
    },
    RunPhase.STOPPING: {"run.settled": _C},
    RunPhase.CLOSED: {},
}


def step(phase: RunPhase, event: Mapping[str, Any], *, open_requests: int) -> RunPhase:
    """The phase after `event`. Raises IllegalEventError for a missing cell.

    `open_requests` counts the run's unanswered requests before the event: the last one resolved ends the waiting.
    """
    symbol: str = event["type"]
    if symbol == "run.ended":
        symbol = f"run.ended:{event['reason']}"
    elif symbol == "run.resolved":
        symbol = "run.resolved:last" if open_requests == 1 else "run.resolved:some"
    try:
        return TABLE[phase][symbol]
    except KeyError:
        raise IllegalEventError(f"{symbol} of run {event.get('runId')} while it is {phase.value}") from None
