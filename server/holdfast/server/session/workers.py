"""The workers of one session on this node, and what the log's events mean for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.protocol.commands import Cancel
from holdfast.server.registry import Owner, Phase, RunState, Settle, Sweep
from holdfast.server.session.journal import Journal
from holdfast.server.session.ports import Worker


class Workers:
    """Who works here, by run id, until the work has stopped and is settled. Used by the session's actor only.

    `start` starts a worker; `chore` brings work of the server's own to the actor.
    """

    def __init__(
        self,
        journal: Journal,
        node: str,
        *,
        start: Callable[[RunState], Worker],
        chore: Callable[[Settle | Sweep], None],
    ) -> None:
        self.by_run: dict[str, Worker] = {}
        self._journal = journal
        self._node = node
        self._start = start
        self._chore = chore

    def done(self, worker: Worker) -> None:
        """The worker's task has stopped, and everything it had to say has been committed."""
        if self.by_run.get(worker.owner.run_id) is worker:
            del self.by_run[worker.owner.run_id]

    def drop_all(self) -> None:
        """Stops everybody without a word in the log."""
        for worker in list(self.by_run.values()):
            worker.drop()
        self.by_run.clear()

    # Cancels

    def halt(self, cancel: Cancel) -> bool:
        """Stops the agents that a cancel is meant for, before it is decided; whether there were any."""
        stopped = [worker.halt() for worker in self._meant(cancel)]
        return any(stopped)

    def release(self, cancel: Cancel) -> None:
        """After a cancel was decided: where its run goes on, the worker that was halted for it has to know."""
        # All of them where it was for the session: its position may mean nothing any more, if the store lost data.
        workers = list(self.by_run.values()) if cancel.run_id is None else self._meant(cancel)
        for worker in workers:
            run = self._journal.state.runs.get(worker.owner.run_id)
            if run is not None and run.open:
                worker.stranded()

    def _meant(self, cancel: Cancel) -> list[Worker]:
        if cancel.run_id is not None:
            worker = self.by_run.get(cancel.run_id)
            return [] if worker is None else [worker]
        up_to, runs = cancel.up_to, self._journal.state.runs
        if up_to is None or up_to.epoch != self._journal.head.epoch or up_to.seq > self._journal.head.seq:
            return []
        return [
            worker for run_id, worker in self.by_run.items() if run_id in runs and runs[run_id].first_seq <= up_to.seq
        ]

    # Events

    def follow(self, event: Mapping[str, Any]) -> None:
        """Does what a committed event means for who works here."""
        worker = self.by_run.get(event["runId"])
        match event["type"]:
            case "run.started":
                self._started(event, worker)
            case "run.ended":
                self._ended(event, worker)
            case "run.resolved" if worker is not None:
                worker.resolved(event)
            case "steer.accepted" if worker is not None:
                worker.steered(event["steerId"], event["boundary"])
            case "steer.withdrawn" if worker is not None:
                worker.unsteered(event["steerId"])
            case _:
                """Concerns nobody here."""

    def _started(self, event: Mapping[str, Any], worker: Worker | None) -> None:
        run = self._journal.state.runs.get(event["runId"])
        if run is None or event["node"] != self._node or run.attempt != event["attempt"]:
            if worker is not None:  # taken over elsewhere
                worker.ended(None)
        elif run.active:
            worker = self.by_run[run.run_id] = self._start(run)
            worker.reconcile(self._journal.state.transcript.runs[run.run_id].info)

    def _ended(self, event: Mapping[str, Any], worker: Worker | None) -> None:
        run = self._journal.state.runs.get(event["runId"])
        if worker is not None:
            worker.ended(event)
        elif run is not None and run.phase is Phase.STOPPING and run.node == self._node:
            self._chore(Settle(Owner(run.run_id, run.node, run.attempt), stopped_after_ms=0, confirmed=True))

    def reconcile(self) -> None:
        """After events were missed: who works on what ended elsewhere stops, and what nobody works on is swept."""
        state = self._journal.state
        for run_id, worker in list(self.by_run.items()):
            run = state.runs.get(run_id)
            mine = run is not None and Owner(run_id, run.node, run.attempt) == worker.owner
            if run is None or not mine or run.phase is Phase.CLOSED:
                worker.ended(None)
            elif run.phase is Phase.STOPPING:
                worker.ended({"reason": run.reason})
            elif worker.over:
                # The store lost the end of the run. An agent that was stopped does not go on: the sweep takes it.
                worker.drop()
                del self.by_run[run_id]
            else:
                worker.reconcile(state.transcript.runs[run_id].info)
        orphaned = any(
            run.node == self._node and run.phase is not Phase.CLOSED and run.run_id not in self.by_run
            for run in state.runs.values()
        )
        if orphaned:
            self._chore(Sweep())
