"""The workers of one session on this node, and what the log's events mean for them."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.protocol.commands import Cancel
from holdfast.server.registry import RunState, SessionState, Settle, Sweep
from holdfast.server.registry.effects import (
    Drop,
    Effect,
    Ended,
    Reconcile,
    Resolved,
    Start,
    Steered,
    Unsteered,
    reconciled,
)
from holdfast.server.session.ports import Worker
from holdfast.server.store import Head


class Workers:
    """Who works here, by run id, until the work has stopped and is settled. `start` starts a worker."""

    def __init__(self, start: Callable[[RunState], Worker]) -> None:
        self.by_run: dict[str, Worker] = {}
        self._start = start

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

    def halt(self, cancel: Cancel, state: SessionState, head: Head) -> bool:
        """Stops the agents that a cancel is meant for, before it is decided; whether there were any."""
        stopped = [worker.halt() for worker in self._meant(cancel, state, head)]
        return any(stopped)

    def release(self, cancel: Cancel, state: SessionState) -> None:
        """After a cancel was decided: where its run goes on, the worker that was halted for it has to know."""
        # All of them where it was for the session: its position may mean nothing any more, if the store lost data.
        workers = [*self.by_run.values()] if cancel.run_id is None else [*self._of(cancel.run_id)]
        for worker in workers:
            run = state.runs.get(worker.owner.run_id)
            if run is not None and run.open:
                worker.stranded()

    def _of(self, run_id: str) -> list[Worker]:
        worker = self.by_run.get(run_id)
        return [] if worker is None else [worker]

    def _meant(self, cancel: Cancel, state: SessionState, head: Head) -> list[Worker]:
        if cancel.run_id is not None:
            return self._of(cancel.run_id)
        up_to = cancel.up_to
        if up_to is None or up_to.epoch != head.epoch or up_to.seq > head.seq:
            return []
        runs = state.runs
        return [
            worker for run_id, worker in self.by_run.items() if run_id in runs and runs[run_id].first_seq <= up_to.seq
        ]

    # Events

    def carry_out(self, effect: Effect) -> Settle | Sweep | None:
        """Does what has followed from the log for a worker; returns what is the session's to do."""
        if isinstance(effect, (Settle, Sweep)):
            return effect
        if isinstance(effect, Start):
            run = effect.run
            worker = self.by_run[run.run_id] = self._start(run)
            worker.reconcile(effect.view)
            return None
        worker_or_none = self.by_run.get(effect.run_id)
        if worker_or_none is None:
            return None
        worker = worker_or_none
        match effect:
            case Ended(_, event):
                worker.ended(event)
            case Drop():
                worker.drop()
                del self.by_run[effect.run_id]
            case Resolved(_, event):
                worker.resolved(event)
            case Steered(_, steer_id, boundary):
                worker.steered(steer_id, boundary)
            case Unsteered(_, steer_id):
                worker.unsteered(steer_id)
            case Reconcile(_, view):
                worker.reconcile(view)
        return None

    def reconciled(self, state: SessionState, node: str) -> list[Effect]:
        """What follows after the state was folded anew."""
        return reconciled(state, {worker.owner: worker.over for worker in self.by_run.values()}, node=node)
