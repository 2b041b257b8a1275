"""Which archive records a command's decision needs, and how they are keyed."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.protocol.commands import Answer, Cancel, Send, Steer, Withdraw
from holdfast.server.registry.state import MEMORY_KEPT_MS, SessionState
from holdfast.server.registry.work import Ask


def run_key(run_id: str) -> str:
    """Of an archived run."""
    return f"run:{run_id}"


def steer_key(steer_id: str) -> str:
    """Of a steer of an archived run."""
    return f"steer:{steer_id}"


def message_key(message_id: str) -> str:
    """Of an archived message's id."""
    return f"message:{message_id}"


def command_key(principal: str, command_id: str) -> str:
    """Of a command that is remembered by the archive. Ids hold no space, principals may."""
    return f"command:{command_id} {principal}"


def keys(state: SessionState, ask: Ask) -> list[str]:
    """The keys whose records the decision of `ask` needs: those of ids that `state` does not know.

    Empty where nothing was ever archived.
    """
    if not state.archived:
        return []
    return list(dict.fromkeys(_keys(state, ask)))


def _keys(state: SessionState, ask: Ask) -> Iterator[str]:
    command = ask.command
    match command:
        case Send():
            ids, lasting = [command.run], True
        case Cancel():
            ids, lasting = [command.run_id] if command.run_id else [], False
        case Steer():
            ids, lasting = [command.id, *([command.run_id] if command.run_id else [])], True
        case Answer():
            ids, lasting = [command.run_id], False
        case _:
            ids, lasting = [command.steer_id], False
    for some_id in ids:
        # A steer that became a run is archived twice: as a run when it closes, and as a steer when the run that it was
        # meant for does. Either may be first.
        if some_id not in state.runs:
            yield run_key(some_id)
        if some_id not in state.steers and (some_id not in state.runs or isinstance(command, Withdraw)):
            yield steer_key(some_id)
    # Those that are not lasting are there only after very many commands in a short time.
    spilled = state.spilled_at > 0 and state.at - state.spilled_at <= MEMORY_KEPT_MS
    if (lasting or spilled) and (ask.principal, command.id) not in state.memories:
        yield command_key(ask.principal, command.id)
    if isinstance(command, Send) and command.message_id and not state.transcript.has_message(command.message_id):
        yield message_key(command.message_id)
