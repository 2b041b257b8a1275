"""Deciding what nobody asked for: what time brings, and what dead nodes leave behind."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.protocol.events import Request
from holdfast.server.registry.draft import SERVER_PRINCIPAL, Draft
from holdfast.server.registry.state import RunState, SessionState
from holdfast.server.registry.table import RunPhase
from holdfast.server.registry.work import Context, Decision, Due, Stop


def decide_upkeep(state: SessionState, context: Context) -> Decision:
    """Expires requests and runs whose time has come, ends abandoned ones, starts the queue's head if it can run."""
    draft = Draft(state, context)
    for run in state.open_runs():
        if _passed((run.run_id, None), run.terms.get("deadlineAt"), context):
            draft.end(run, "expired", cause="deadline", by=SERVER_PRINCIPAL, device=context.node, promote=False)
        elif _abandoned_at(run, context.unobserved_since, context.now) <= context.now:
            draft.end(run, "cancelled", cause="abandoned", by=SERVER_PRINCIPAL, device=context.node, promote=False)
        else:
            for request in list(state.transcript.runs[run.run_id].info["requests"]):
                if request_passed(run.run_id, request, context):
                    draft.emit("run.resolved", runId=run.run_id, requestId=request["id"], outcome="expired")
    draft.promote()
    return draft.decision


def request_passed(run_id: str, request: Request, context: Context) -> bool:
    """Whether nobody can answer the request any more."""
    return _passed((run_id, request["id"]), request.get("expiresAt"), context)


def _passed(due: Due, at: int | None, context: Context) -> bool:
    return at is not None and context.dues.get(due, at) <= context.now


def due_times(state: SessionState) -> dict[Due, int]:
    """When the runs and requests that are open expire, as the log has it (ms since the epoch)."""
    times: dict[Due, int] = {}
    for run in state.open_runs():
        if "deadlineAt" in run.terms:
            times[run.run_id, None] = run.terms["deadlineAt"]
        for request in state.transcript.runs[run.run_id].info["requests"]:
            if "expiresAt" in request:
                times[run.run_id, request["id"]] = request["expiresAt"]
    return times


def due_at(state: SessionState, unobserved_since: int | None, dues: Mapping[Due, int] | None = None) -> int | None:
    """When `decide_upkeep` has something to do next (ms since the epoch); None if nothing waits.

    By `dues`, see `Context`; without them, by the log's word.
    """
    times = list((due_times(state) if dues is None else dues).values())
    if unobserved_since is not None:
        runs = [run for run in state.open_runs() if "abandonMs" in run.terms]
        times.extend(_abandoned_at(run, unobserved_since, 0) for run in runs)
    return min(times, default=None)


class SteadyDues:
    """Due times by a clock that nobody sets: a step of the wall clock makes none of them earlier or later.

    A time is taken at the wall clock's word when it is first seen, right after it came into the log, or when the log is
    read by another process; from then on it comes after as long as it was away then.
    """

    def __init__(self) -> None:
        self._seen: dict[Due, tuple[int, int]] = {}
        """What the log says, and when that is on the steady clock."""

    def adjusted(self, times: Mapping[Due, int], *, now: int, steady: int) -> dict[Due, int]:
        """The same times by a wall clock that stands at `now` while the steady one, in ms too, is at `steady`."""
        seen, self._seen = self._seen, {}
        for due, at in times.items():
            before = seen.get(due)
            self._seen[due] = before if before is not None and before[0] == at else (at, steady + at - now)
        return {due: now + ends - steady for due, (_, ends) in self._seen.items()}


def _abandoned_at(run: RunState, unobserved_since: int | None, now: int) -> int:
    """When the run counts as abandoned; a time after `now` where it cannot."""
    patience = run.terms.get("abandonMs")
    if patience is None or unobserved_since is None:
        return now + 1
    return max(unobserved_since, run.terms["acceptedAt"]) + patience


def decide_sweep(state: SessionState, context: Context) -> Decision:
    """Ends or takes over runs of nodes without a lease, settles what they left, starts the queue's head.

    What this node could start again, but for going away itself, is left for the next; and what only another node has
    the agent for is left to that one.
    Queued runs whose agent is gone, and can be on no other node, end too: they would block the queue for ever.
    """
    draft = Draft(state, context)
    for run in list(state.runs.values()):
        if run.run_id in context.working if run.node == context.node else run.node in context.live_nodes:
            continue
        if run.phase is RunPhase.STOPPING:
            stopped_after_ms = max(0, context.now - run.ended_at)
            draft.emit("run.settled", runId=run.run_id, stoppedAfterMs=stopped_after_ms, confirmed=False)
        elif run.active:
            _take_over(draft, run)
        elif run.phase is RunPhase.QUEUED and context.alone and run.agent not in context.agents:
            draft.end(
                run, "cancelled", cause="unknown_agent", by=SERVER_PRINCIPAL, device=context.node, promote=False
            )  # fmt: skip
    draft.promote()
    return draft.decision


def _take_over(draft: Draft, run: RunState) -> None:
    """Starts a run again, ends it as lost, or leaves it to who can do better."""
    context = draft.context
    traits = context.agents.get(run.agent)
    if traits is None and run.agent in context.elsewhere:
        return
    crashed = run.phase is RunPhase.RUNNING and not (context.left_in_order and run.node != context.node)
    crashes = run.terms.get("crashes", 0) + crashed
    if traits is None or not traits.restartable or crashes >= context.limits.crashes:
        draft.end(run, "lost", promote=False)
    elif context.accepting:
        _restart(draft, run, crashes)


def _restart(draft: Draft, run: RunState, crashes: int) -> None:
    for request in list(draft.state.transcript.runs[run.run_id].info["requests"]):
        draft.emit("run.resolved", runId=run.run_id, requestId=request["id"], outcome="withdrawn")
    message = run.message
    assert message is not None, "an active run has a message"
    draft.emit(
        "run.started",
        runId=run.run_id,
        agent=run.agent,
        by=run.by,
        device=run.device,
        messageId=message.fields["id"],
        after=message.fields["after"],
        attempt=run.attempt + 1,
        node=draft.context.node,
        command=run.command,
        note={"terms": {**run.terms, "crashes": crashes}},
    )


def decide_stop(state: SessionState, work: Stop, context: Context) -> Decision:
    """Ends a run in the server's own name; `refused` where it has ended already."""
    run = state.runs.get(work.run_id)
    if run is None or not run.open:
        return Decision(refused=True)
    draft = Draft(state, context)
    draft.end(run, "cancelled", cause=work.cause, by=SERVER_PRINCIPAL, device=context.node)
    return draft.decision
