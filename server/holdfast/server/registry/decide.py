"""decide(state, work, context): what a piece of work adds to the log, and what whoever brought it is told."""

from __future__ import annotations

from holdfast.server.registry.commands import decide_command
from holdfast.server.registry.owned import decide_owned
from holdfast.server.registry.state import SessionState
from holdfast.server.registry.upkeep import decide_stop, decide_sweep, decide_upkeep
from holdfast.server.registry.work import Ask, Context, Decision, Stop, Sweep, Upkeep, Work


def decide(state: SessionState, work: Work, context: Context) -> Decision:
    """Decides one piece of work on the state as it stands, and folds what it adds into the state at once.

    The caller appends the records of a batch of decisions in one step. If it cannot, it folds a new state from the
    store and decides all of them again, with a context read anew.

    Raises CommandError for a command that is refused; the state is then as it was.
    """
    match work:
        case Ask():
            return decide_command(state, work, context)
        case Upkeep():
            return decide_upkeep(state, context)
        case Sweep():
            return decide_sweep(state, context)
        case Stop():
            return decide_stop(state, work, context)
        case _:
            return decide_owned(state, work, context)
