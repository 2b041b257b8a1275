"""The run registry: what a session's log means, and what a piece of work adds to it. Pure: no I/O, clock or chance."""

from holdfast.server.errors import IllegalEventError
from holdfast.server.registry.checkpoint import Compaction, closed_runs, compact, compacted, load, loading
from holdfast.server.registry.decide import decide
from holdfast.server.registry.fold import fold
from holdfast.server.registry.keys import keys
from holdfast.server.registry.owned import decide_chunk, part_number
from holdfast.server.registry.state import Memory, Note, Record, RunState, SessionState
from holdfast.server.registry.table import ACTIVE, OPEN, TABLE, RunPhase
from holdfast.server.registry.upkeep import SteadyDues, due_at, due_times
from holdfast.server.registry.work import (
    AgentTraits,
    Ask,
    Chunk,
    ClientCommand,
    Context,
    Decision,
    Due,
    Finish,
    OpenRequest,
    OwnedWork,
    Owner,
    RetractRequest,
    RunLimits,
    Settle,
    Stop,
    Sweep,
    TakeSteers,
    Upkeep,
    Work,
)

__all__ = [
    "ACTIVE",
    "OPEN",
    "TABLE",
    "AgentTraits",
    "Ask",
    "Chunk",
    "ClientCommand",
    "Compaction",
    "Context",
    "Decision",
    "Due",
    "Finish",
    "IllegalEventError",
    "Memory",
    "Note",
    "OpenRequest",
    "OwnedWork",
    "Owner",
    "Record",
    "RetractRequest",
    "RunLimits",
    "RunPhase",
    "RunState",
    "SessionState",
    "Settle",
    "SteadyDues",
    "Stop",
    "Sweep",
    "TakeSteers",
    "Upkeep",
    "Work",
    "closed_runs",
    "compact",
    "compacted",
    "decide",
    "decide_chunk",
    "due_at",
    "due_times",
    "fold",
    "keys",
    "load",
    "loading",
    "part_number",
]
