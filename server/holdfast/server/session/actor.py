"""The session actor: one task per open session that owns its state and moves it on.

Its loop is a group commit: take all that is pending, decide it in order on the state, append the result once, and only
then tell anybody. Reads that must not see a state half way (joins, snapshots, history) are jobs that run between two
commits. On a conflict the state is folded anew from the store and everything is decided again.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final, TypeVar

import structlog

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.codec import MSGPACK_CODEC
from holdfast.protocol.commands import Answer, Cancel, Cursor
from holdfast.protocol.errors import CommandError
from holdfast.protocol.events import Event, Failure, Message
from holdfast.server.clock import Timers
from holdfast.server.errors import SessionFailed
from holdfast.server.registry import (
    Ask,
    Chunk,
    Context,
    Due,
    Finish,
    OpenRequest,
    Record,
    RetractRequest,
    Settle,
    SteadyDues,
    Sweep,
    TakeSteers,
    Upkeep,
    Work,
    closed_runs,
    decide,
    decide_chunk,
    due_at,
    due_times,
    keys,
)
from holdfast.server.session.catch_up import CatchUps
from holdfast.server.session.cuts import Cut, pages
from holdfast.server.session.jobs import Jobs
from holdfast.server.session.journal import Journal
from holdfast.server.session.mailbox import Chore, Item, Mailbox
from holdfast.server.session.ports import Host, Output, Reply, Worker
from holdfast.server.session.subscriber import Subscriber
from holdfast.server.session.subscribers import Subscribers
from holdfast.server.session.workers import Workers
from holdfast.server.store import Head, StoreError

_T = TypeVar("_T")
_PRESENCE_CHECK_MS: Final = 5_000
_LONGEST_COMPACT_PAUSE_SECONDS: Final = 60.0
"""Between tries at a checkpoint that the store does not take: they double up to this."""
_NOTHING: Final[frozenset[type[Work]]] = frozenset()
_log = structlog.get_logger("holdfast.session")


class Session:
    """One open session on one node. `start` it, and `close` it when nobody needs it."""

    def __init__(self, session_id: str, host: Host) -> None:
        self.id = session_id
        self.idle_since: float | None = None
        """The monotonic time since when nothing has been going on here, as the node has seen it."""
        self._host = host
        self._journal = Journal(
            session_id,
            host.store,
            node=host.node,
            clock=host.clock,
            settings=host.settings,
            slices=host.slices,
            waiting=self._reply_late,
        )
        self._jobs = Jobs(self._journal, self._notify)
        self._catch_ups = CatchUps(session_id, self._jobs, host.slices)
        self.subscribers = Subscribers(self._journal, host.clock, host.settings, self._fell_behind)
        self._workers = Workers(
            self._journal, host.node, start=functools.partial(host.start_worker, self), chore=self.chore
        )
        self.workers: Mapping[str, Worker] = self._workers.by_run
        """Those that work here, by run id, until the work has stopped and is settled."""
        self._mailbox = Mailbox()
        self._ready: dict[str, Worker] = {}
        self._outputs: list[Output] = []
        """What agents have said, in the batch that is decided."""
        self._taken: list[tuple[Worker, list[Output]]] = []
        """The same, by whom."""
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timers = Timers(host.clock)
        self._steady = SteadyDues()
        self._hold_until = 0.0
        self._observers: int | None = 0
        self._refresh = False
        self._compact = False
        self._compact_failures = 0
        """In a row."""
        self._closing = False
        self._over = False
        """Whether the actor has ended: nothing is taken any more."""

    # From outside

    def start(self) -> None:
        """Begins to work: loads the state first."""
        self._task = asyncio.create_task(self._main(), name=f"session {self.id}")

    async def close(self) -> None:
        """Ends when what is pending has been committed. Workers must have ended before."""
        self._closing = True
        self._notify()
        await self._catch_ups.close()
        if self._task is not None:
            await asyncio.wait({self._task})  # how it failed, if it did, was logged there

    def abort(self) -> None:
        """Ends the actor at once, where `close` waits for a store that does not answer. Harmless when it has ended."""
        if self._task is not None:
            self._task.cancel()

    @property
    def busy(self) -> bool:
        """Whether anything goes on here: subscribers, workers, or work that waits."""
        return bool(self.subscribers.present or self.workers or self._jobs or self._mailbox.pending or self._outputs)

    @property
    def head(self) -> Head:
        """Where the log stood when it was last read or appended to here."""
        return self._journal.head

    @property
    def pending(self) -> bool:
        """Whether commands or chores are on their way into the log."""
        return self._mailbox.pending or bool(self._outputs)

    @property
    def waiting(self) -> bool:
        """Whether a time is to come that only an open session keeps: an expiry, a deadline, a compaction."""
        return bool(self._timers)

    @property
    def failed(self) -> bool:
        """Whether the actor has ended by an error of its own; the node then closes it, and opens the session anew."""
        return self._over and not self._closing

    def submit(self, ask: Ask, reply: Reply) -> None:
        """Brings a command; `reply` is called with its outcome.

        A cancel stops the agent at once if it works here, before anything is in the log.
        """
        if self._over:
            reply(_ended_error(failed=self.failed))
            return
        command = ask.command
        halted = False
        if isinstance(command, Cancel) and (ask.principal, command.id) not in self._journal.state.memories:
            halted = self._workers.halt(command)
        self._mailbox.command(ask, self._host.clock.monotonic(), reply, halted=halted)
        if "late" not in self._timers:
            self._timers.after("late", self._host.settings.unavailable_ms / 1000, self._watch_replies)
        self._notify()

    def produced(self, worker: Worker) -> None:
        """A worker has output to take."""
        if not self._over:
            self._ready[worker.owner.run_id] = worker
            self._notify()

    def chore(self, work: Chore) -> None:
        """Brings work of the server's own; nothing happens to it where the actor has ended."""
        if not self._over:
            self._mailbox.chore(work, self._host.clock.monotonic())
            self._notify()

    def store_moved(self) -> None:
        """Another node has appended, or may have: look at the store's head."""
        self._refresh = True
        self._notify()

    def worker_done(self, worker: Worker) -> None:
        """The worker's task has stopped, and everything it had to say has been committed."""
        self._workers.done(worker)
        self._notify()

    async def between_commits(self, job: Callable[[Journal], Awaitable[_T]]) -> _T:
        """Runs `job` in the actor while the state is what the store has, and returns its result."""
        return await self._jobs.run(job)

    async def join(self, subscriber: Subscriber, cursor: Cursor | None, welcome: Mapping[str, Any]) -> None:
        """Takes a subscriber in: sends `welcome`, completed, then what it missed, then `caughtUp`; then it is live.

        Returns when it is live for the first time. Cancelled, it may leave the subscriber in: close its wire, and call
        `leave`.
        """

        async def join(journal: Journal) -> None:
            resume = await self.subscribers.join(subscriber, cursor)
            subscriber.write({**welcome, "epoch": journal.head.epoch, "head": journal.head.seq, "resume": resume})

        self._refresh = True
        await self._jobs.run(join)
        await self._catch_ups.run(self.subscribers, subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Lets a subscriber go. It is no cancel: the runs go on."""
        self.subscribers.leave(subscriber)
        self._notify()

    async def history(self, command_id: str, before: int | None, limit: int) -> AsyncGenerator[dict[str, Any]]:
        """The `page` messages for `history`, of this moment and made as they are asked for."""
        return pages(await self._jobs.run(lambda journal: journal.cut(before, limit)), command_id)

    async def conversation(self, run_id: str) -> list[Message]:
        """The transcript as a run's agent should see it: all messages before its own, bounded by the settings."""
        settings = self._host.settings

        async def read(journal: Journal) -> Cut:
            view = journal.state.transcript.runs.get(run_id)
            before = None if view is None else view.info.get("startedSeq")
            return await journal.cut(before, settings.history_messages)

        return await (await self._jobs.run(read)).newest(settings.history_bytes).whole()

    # The loop

    def _fell_behind(self, subscriber: Subscriber) -> None:
        self._catch_ups.start(self.subscribers, subscriber)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _main(self) -> None:
        try:
            await self._work()
        except Exception:
            head, runs = self._journal.head, list(self.workers)
            _log.exception(
                "session failed", session=self.id, node=self._host.node, epoch=head.epoch, seq=head.seq, runs=runs
            )
        finally:
            self._end()

    async def _work(self) -> None:
        """Returns when the session was closed and nothing waits. Whatever is raised here ends it."""
        await self._journal.load()
        self._workers.reconcile()
        self._after_lifecycle()
        self._compact = self._journal.heavy
        while True:
            await self._pending()
            if self._closing and not (self._mailbox.waiting or self._ready or self._jobs):
                return
            await self._round()

    def _end(self) -> None:
        """Nothing is taken any more, however it came to that, and whoever waits for something is told."""
        self._over = True
        error = _ended_error(failed=self.failed)
        self._mailbox.refuse_all(error)
        self._jobs.close(SessionFailed(error.message))
        self._workers.drop_all()
        self._ready, self._outputs, self._taken = {}, [], []
        if self.failed:
            for subscriber in list(self.subscribers.present):
                subscriber.wire.close(CloseCode.STORE_UNAVAILABLE, "the session failed here")
        self.subscribers.close()
        self._timers.clear()

    async def _pending(self) -> None:
        """Returns when there is something to do."""
        if self._closing:
            await asyncio.sleep(0)  # there is always something to do then: it must not keep the loop from others
        while not (
            self._mailbox.waiting
            or self._jobs
            or self._refresh
            or self._compact
            or self._closing
            or len(self.subscribers.present) != self._observers
            or (self._ready and self._host.clock.monotonic() >= self._hold_until)
        ):
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
            self._wake = None

    async def _round(self) -> None:
        # Taken before the head is read, which a join relies on, and done after the commands that came before them.
        jobs = self._jobs.take()
        if self._refresh:
            self._refresh = False
            if await self._journal.moved_on():
                await self._reload()
        if len(self.subscribers.present) != self._observers:
            self._observers = len(self.subscribers.present)
            await self._journal.observe(self._observers)
            self._schedule_upkeep(await self._unobserved_since())
        self._take()
        if self._mailbox.batch or self._outputs:
            await self._commit()
            self._mailbox.batch, self._outputs, self._taken = [], [], []
        for job in jobs:
            await job()
        if self._compact or (self._journal.heavy and "compact" not in self._timers):
            self._compact = False
            await self._compact_log()

    async def _compact_log(self) -> None:
        if await self._journal.moved_on():
            await self._reload()
        try:
            await self._journal.compact()
        except StoreError as error:
            # Nearly full, it may still take what is appended, which must not wait for this.
            pause = self._host.settings.compact_after_ms / 1000 * 2**self._compact_failures
            seconds = min(pause, _LONGEST_COMPACT_PAUSE_SECONDS)
            self._compact_failures = min(self._compact_failures + 1, 16)
            _log.warning("session not compacted", session=self.id, error=str(error), retry_seconds=seconds)
            self._timers.after("compact", seconds, self._compact_now)
        else:
            self._compact_failures = 0

    def _take(self) -> None:
        """Moves what is pending into the batch: commands, chores, and the output of agents unless it is held."""
        self._mailbox.take()
        if self._ready and (self._closing or self._host.clock.monotonic() >= self._hold_until):
            ready, self._ready = self._ready, {}
            self._taken = [(worker, worker.take()) for worker in ready.values()]
            for _, outputs in self._taken:
                self._outputs.extend(outputs)

    async def _commit(self) -> None:
        """Decides the batch and appends it, as often as it takes; then tells everybody."""
        journal = self._journal
        kinds = {type(item.work) for item in self._mailbox.batch} if self._mailbox.batch else _NOTHING
        records: list[Record] = []
        encoded: list[bytes] = []
        while True:
            # Replies that add nothing bypass compare-and-append: they need a head read after the command came.
            if Ask in kinds and await journal.moved_on():
                await self._reload()
            decided = self._decide(await self._context(kinds) if kinds else self._plain_context())
            if decided is not None:
                records, encoded = decided
                if not records or await journal.append(records, encoded):
                    break
            await self._reload()
        if journal.contended:
            journal.contended = False
            seconds = self._host.settings.contended_hold_ms / 1000
            self._hold_until = self._host.clock.monotonic() + seconds
            self._timers.after("hold", seconds, self._notify)
        if records:
            events = [record.event for record in records]
            self.subscribers.fan_out(events, encoded)
            self._effects(events)
        if kinds:
            await self._tell(kinds)
        for output in self._outputs:
            output.tell()
        for worker, outputs in self._taken:
            worker.committed(outputs)

    async def _tell(self, kinds: Set[type[Work]]) -> None:
        for item in self._mailbox.batch:
            item.tell()
            if isinstance(item.work, Ask) and isinstance(item.work.command, Cancel):
                self._workers.release(item.work.command)
        if Upkeep in kinds:
            # It may have come too early to add anything: a long wait is cut, and presence changes without an event.
            self._schedule_upkeep(await self._unobserved_since())

    def _decide(self, context: Context) -> tuple[list[Record], list[bytes]] | None:
        """Decides the batch on the state; what it adds, and the events of that as msgpack.

        None where one piece of it cannot be decided or encoded. That one is taken out, so that it fails nobody else,
        and the state, which may stand half way, must be folded anew before the others are decided again.
        """
        state, encode = self._journal.state, MSGPACK_CODEC.encode
        records: list[Record] = []
        encoded: list[bytes] = []
        item: Item | Output | None = None
        try:
            for item in self._mailbox.batch:
                if item.left_out:
                    continue
                item.decision, item.error = None, None
                if isinstance(item.work, Sweep):
                    # What this very batch starts is worked on as soon as it is in the log, and what it settles never
                    # was: neither is anybody's leavings.
                    known = {record.event["runId"] for record in records if record.event["type"] == "run.started"}
                    settles = [other.work for other in self._mailbox.batch if isinstance(other.work, Settle)]
                    known.update(settle.owner.run_id for settle in settles)
                    context = replace(context, working=frozenset(self.workers) | known)
                try:
                    item.decision = decide(state, item.work, context)
                except CommandError as error:
                    item.error = error
                else:
                    records.extend(item.decision.records)
                    encoded.extend(encode(record.event) for record in item.decision.records)
            for item in self._outputs:
                if isinstance(item.work, Chunk):
                    record = decide_chunk(state, item.work, context)
                    if record is not None:
                        records.append(record)
                        encoded.append(encode(record.event))
                else:
                    item.decision = decide(state, item.work, context)
                    records.extend(item.decision.records)
                    encoded.extend(encode(record.event) for record in item.decision.records)
        except Exception:
            assert item is not None, "only deciding a piece of work fails"
            _log.exception("deciding failed", session=self.id, work=type(item.work).__name__)
            self._leave_out(item)
            return None
        return records, encoded

    def _leave_out(self, item: Item | Output) -> None:
        if isinstance(item, Item):
            item.left_out = True  # it stays in the batch: the agent that was halted for it is seen to behind the commit
            item.error = CommandError("internal", "the server failed to decide this; its log has the reason")
            item.tell()
            return
        self._outputs.remove(item)
        item.decision = None
        item.tell()
        if isinstance(item.work, (Chunk, OpenRequest, RetractRequest, TakeSteers)):
            # Its agent believes that this is in the log: the run cannot go on as if it were.
            failure: Failure = {"code": "internal", "message": "The server failed. Its log has the reason."}
            self._outputs.append(Output(Finish(item.work.owner, "failed", error=failure)))
        else:
            # Not even its end can be written: the sweep finds a run that nobody works on.
            worker = self.workers.get(item.work.owner.run_id)
            if worker is not None:
                worker.drop()
                self._workers.done(worker)
            self.chore(Sweep())

    def _plain_context(self) -> Context:
        """What agents' output is decided by."""
        host = self._host
        return Context(host.clock.now(), host.node, host.traits, host.accepting, limits=host.settings.limits)

    async def _context(self, kinds: Set[type[Work]]) -> Context:
        """What a batch with work of these kinds is decided by."""
        journal, context = self._journal, self._plain_context()
        if Ask in kinds:
            asks = [item.work for item in self._mailbox.batch if isinstance(item.work, Ask)]
            context.archive = await journal.find([key for ask in asks for key in keys(journal.state, ask)])
            if any(isinstance(ask.command, Answer) for ask in asks):
                context.dues = self._dues()
        if Sweep in kinds:
            live = await journal.live()
            context.live_nodes = frozenset(live)
            others = [says.agents for node, says in live.items() if node != context.node and says.accepting]
            context.elsewhere = frozenset[str]().union(*others)
            context.working = frozenset(self.workers)
            context.alone = not self._host.store.shared
            context.left_in_order = self._host.store.left_in_order
        if Upkeep in kinds:
            context.unobserved_since = await self._unobserved_since()
            context.dues = self._dues()
        return context

    def _dues(self) -> dict[Due, int]:
        clock = self._host.clock
        return self._steady.adjusted(
            due_times(self._journal.state), now=clock.now(), steady=round(clock.monotonic() * 1000)
        )

    async def _unobserved_since(self) -> int | None:
        if self.subscribers.present or not self._abandonable:
            return None
        return await self._journal.unobserved_since()

    @property
    def _abandonable(self) -> bool:
        return any("abandonMs" in run.terms for run in self._journal.state.open_runs())

    async def _reload(self) -> None:
        """Folds the state anew, and brings everyone here to where the log is now."""
        epoch = self._journal.head.epoch
        missed = await self._journal.reload()
        if missed is None:
            self.subscribers.reset_all(new_epoch=self._journal.head.epoch != epoch)
        elif missed:
            encoded = [MSGPACK_CODEC.encode(event) for event in missed]
            self.subscribers.fan_out(missed, encoded)
            self._effects(missed)
        self._workers.reconcile()
        self._after_lifecycle()

    # What follows from events

    def _effects(self, events: Sequence[Event]) -> None:
        lifecycle = False
        for event in events:
            if event["type"] == "run.chunk":
                continue
            lifecycle = True
            self._workers.follow(event)
        if lifecycle:
            self._after_lifecycle()

    def _after_lifecycle(self) -> None:
        state = self._journal.state
        if state.queue and state.main is None:
            head = state.runs[state.queue[0]]
            if self._host.accepting and head.agent in self._host.traits:
                self.chore(Upkeep())
        if closed_runs(state) and "compact" not in self._timers:
            self._timers.after("compact", self._host.settings.compact_after_ms / 1000, self._compact_now)
        self._schedule_upkeep(None)
        if self._abandonable and not self.subscribers.present:
            self._observers = None  # makes the next round read the presence, which the due time depends on

    def _compact_now(self) -> None:
        self._compact = True
        self._notify()

    def _schedule_upkeep(self, unobserved_since: int | None) -> None:
        due = due_at(self._journal.state, unobserved_since, self._dues())
        if unobserved_since is None and self._abandonable and not self.subscribers.present:
            # Somebody watches through another node, and nobody will say when that ends.
            due = min(due or sys.maxsize, self._host.clock.now() + _PRESENCE_CHECK_MS)
        self._timers.cancel("upkeep")
        if due is not None:
            wait_ms = max(0, due - self._host.clock.now())
            # A wait of more than a day is cut, and looked at again.
            self._timers.after("upkeep", min(wait_ms, 86_400_000) / 1000, functools.partial(self.chore, Upkeep()))

    # Telling

    def _watch_replies(self) -> None:
        """A store may not only fail but say nothing at all: this does not wait for it."""
        self._reply_late()
        oldest = self._mailbox.oldest_waiting()
        if oldest is not None:
            due = oldest + self._host.settings.unavailable_ms / 1000
            self._timers.after("late", max(0.001, due - self._host.clock.monotonic()), self._watch_replies)

    def _reply_late(self) -> None:
        """The store does not answer: commands that have waited long enough are told. They may be in the log yet."""
        oldest = self._host.clock.monotonic() - self._host.settings.unavailable_ms / 1000
        error = CommandError("unavailable", "the store does not answer", retryable=True, retry_after_ms=1000)
        self._mailbox.refuse_older(oldest, error)


def _ended_error(*, failed: bool) -> CommandError:
    """What whoever asks is told. What was being appended may be in the log: the same id may be sent again."""
    reason = "the session failed on this server, whose log has the reason" if failed else "the session was closed here"
    return CommandError("unavailable", reason, retryable=True, retry_after_ms=1000)
