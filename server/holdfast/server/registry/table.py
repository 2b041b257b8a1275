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


class Phase(Enum):
    """Where a run stands."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPING = "stopping"
    CLOSED = "closed"

    # Members are singletons; the hash that Enum has in Python would be looked up several times for every chunk.
    __hash__ = object.__hash__


ACTIVE: Final = frozenset({Phase.RUNNING, Phase.WAITING})
"""An agent works on the run."""
OPEN: Final = frozenset({Phase.QUEUED, Phase.RUNNING, Phase.WAITING})
"""The run has no terminal yet."""

_U, _Q, _R, _W, _S, _C = Phase


def _ends(phase: Phase) -> dict[str, Phase]:
    """The cells for the ends of a run of this phase: `run.ended:` and the reason."""
    return {
        f"run.ended:{reason}": _S if end.settles and phase in ACTIVE else _C
        for reason, end in ENDS.items()
        if phase.value in end.of
    }


TABLE: Final[Mapping[Phase, Mapping[str, Phase]]] = {
    Phase.UNKNOWN: {
        "message": _U,
        "run.queued": _Q,
        "run.started": _R,
        **_ends(Phase.UNKNOWN),  # prevented: entered as ended before it was ever sent
    },
    Phase.QUEUED: {
        "message": _Q,
        "run.started": _R,
        "steer.accepted": _Q,
        "steer.withdrawn": _Q,
        **_ends(Phase.QUEUED),
    },
    Phase.RUNNING: {
        "run.started": _R,  # another attempt, by a node that took the run over
        "run.chunk": _R,
        "run.requested": _W,
        "steer.accepted": _R,
        "steer.applied": _R,
        "steer.withdrawn": _R,
        **_ends(Phase.RUNNING),
    },
    Phase.WAITING: {
        "run.started": _R,
        "run.chunk": _W,
        "run.requested": _W,
        "run.resolved:some": _W,
        "run.resolved:last": _R,
        "steer.accepted": _W,
        "steer.applied": _W,
        "steer.withdrawn": _W,
        **_ends(Phase.WAITING),
    },
    Phase.STOPPING: {"run.settled": _C},
    Phase.CLOSED: {},
}


def step(phase: Phase, event: Mapping[str, Any], *, open_requests: int) -> Phase:
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
