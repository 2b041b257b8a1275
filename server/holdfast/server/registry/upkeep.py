"""Deciding what nobody asked for: what time brings, and what dead nodes leave behind."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.server.registry.draft import SERVER_PRINCIPAL, Draft
from holdfast.server.registry.state import RunState, SessionState
from holdfast.server.registry.table import Phase
from holdfast.server.registry.work import AgentTraits, Context, Decision, Stop


def decide_upkeep(state: SessionState, context: Context) -> Decision:
    """Expires requests and runs whose time has come, ends abandoned ones, starts the queue's head if it can run."""
    draft = Draft(state, context)
    for run in state.open_runs():
        deadline = run.terms.get("deadlineAt")
        if deadline is not None and deadline <= context.now:
            draft.end(run, "expired", cause="deadline", by=SERVER_PRINCIPAL, device=context.node, promote=False)
        elif _abandoned_at(run, context.unobserved_since, context.now) <= context.now:
            draft.end(run, "cancelled", cause="abandoned", by=SERVER_PRINCIPAL, device=context.node, promote=False)
        else:
            for request in list(state.transcript.runs[run.run_id].info["requests"]):
                if request.get("expiresAt", context.now + 1) <= context.now:
                    draft.emit("run.resolved", runId=run.run_id, requestId=request["id"], outcome="expired")
    draft.promote()
    return draft.decision


def due_at(state: SessionState, unobserved_since: int | None) -> int | None:
    """When `decide_upkeep` has something to do next (ms since the epoch); None if nothing waits."""
    times: list[int] = []
    for run in state.open_runs():
        if "deadlineAt" in run.terms:
            times.append(run.terms["deadlineAt"])
        if "abandonMs" in run.terms and unobserved_since is not None:
            times.append(_abandoned_at(run, unobserved_since, 0))
        requests = state.transcript.runs[run.run_id].info["requests"]
        times.extend(request["expiresAt"] for request in requests if "expiresAt" in request)
    return min(times, default=None)


def _abandoned_at(run: RunState, unobserved_since: int | None, now: int) -> int:
    """When the run counts as abandoned; a time after `now` where it cannot."""
    patience = run.terms.get("abandonMs")
    if patience is None or unobserved_since is None:
        return now + 1
    return max(unobserved_since, run.terms["acceptedAt"]) + patience


def decide_sweep(state: SessionState, context: Context) -> Decision:
    """Ends or takes over runs of nodes without a lease, settles what they left, starts the queue's head.

    Queued runs whose agent is gone, and can be on no other node, end too: they would block the queue for ever.
    """
    draft = Draft(state, context)
    for run in list(state.runs.values()):
        if run.run_id in context.working if run.node == context.node else run.node in context.live_nodes:
            continue
        if run.phase is Phase.STOPPING:
            stopped_after_ms = max(0, context.now - run.ended_at)
            draft.emit("run.settled", runId=run.run_id, stoppedAfterMs=stopped_after_ms, confirmed=False)
        elif run.active and _restartable(context.agents, run.agent) and context.accepting:
            _restart(draft, run)
        elif run.active:
            draft.end(run, "lost", promote=False)
        elif run.phase is Phase.QUEUED and context.alone and run.agent not in context.agents:
            draft.end(
                run, "cancelled", cause="unknown_agent", by=SERVER_PRINCIPAL, device=context.node, promote=False
            )  # fmt: skip
    draft.promote()
    return draft.decision


def _restartable(agents: Mapping[str, AgentTraits], agent: str) -> bool:
    return agent in agents and agents[agent].restartable


def _restart(draft: Draft, run: RunState) -> None:
    for request in list(draft.state.transcript.runs[run.run_id].info["requests"]):
        draft.emit("run.resolved", runId=run.run_id, requestId=request["id"], outcome="withdrawn")
    answer = run.answer
    assert answer is not None, "an active run has an answer"
    draft.emit(
        "run.started",
        runId=run.run_id,
        agent=run.agent,
        by=run.by,
        device=run.device,
        messageId=answer.fields["id"],
        after=answer.fields["after"],
        attempt=run.attempt + 1,
        node=draft.context.node,
        command=run.command,
    )


def decide_stop(state: SessionState, work: Stop, context: Context) -> Decision:
    """Ends a run in the server's own name; `refused` where it has ended already."""
    run = state.runs.get(work.run_id)
    if run is None or not run.open:
        return Decision(refused=True)
    draft = Draft(state, context)
    draft.end(run, "cancelled", cause=work.cause, by=SERVER_PRINCIPAL, device=context.node)
    return draft.decision
