"""The session as it runs on a node: it carries out what its core says, and asks the store what the core asks.

Theory of operation. What the core decides is in `core.py`, and what it is like is the log's business. Here is the shell
around it. All sessions of a node that have mail are worked in one turn of the event loop (`node/turns.py`), in phases:
each decides (`decide`), all that they add goes to the store together, and each is told what became of it (`landed`). In
this no task, no future and no coroutine is made. Whatever has to wait runs as a task of the session's scope: a question
that the store does not answer at once, a checkpoint, readers that catch up. There is one question at a time; while it
is asked the session takes no turn, and its mail waits.

    OPEN ──close──► CLOSING ──nothing waits any more──► OVER
      └───────────────┴── an error of its own ────────► OVER

The scope ends when the session is over, and everything in it has ended then. Nobody is left waiting: what is in the
mailbox is refused, reads are told, and workers stop.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncGenerator, Coroutine, Mapping
from enum import Enum
from typing import Any, Final

import structlog

from holdfast.protocol.close_codes import CloseCode
from holdfast.protocol.commands import Cancel, Cursor
from holdfast.protocol.errors import CommandError, HoldfastError
from holdfast.protocol.events import Message
from holdfast.protocol.messages import OpenMessage
from holdfast.server.clock import Timers
from holdfast.server.errors import SessionFailedError, StoreError, StoreUnavailableError, UnknownFormatError
from holdfast.server.registry import AgentTraits, Ask, Upkeep, Work, closed_runs
from holdfast.server.registry.effects import abandonable, promotable
from holdfast.server.session.catch_up import CatchUps
from holdfast.server.session.core import Core, Landed, Question, Stage
from holdfast.server.session.cuts import pages
from holdfast.server.session.journal import Journal
from holdfast.server.session.mailbox import Chore, Mail
from holdfast.server.session.ports import Host, Reply, Worker
from holdfast.server.session.subscriber import Subscriber
from holdfast.server.session.subscribers import Subscribers
from holdfast.server.session.workers import Workers
from holdfast.server.store import Append, Batch, Head, Outcome

_LONGEST_COMPACT_PAUSE_SECONDS: Final = 60.0
"""Between tries at a checkpoint that the store does not take: they double up to this."""
_log = structlog.get_logger("holdfast.session")


class Life(Enum):
    """How far the session is."""

    OPEN = "open"
    CLOSING = "closing"
    OVER = "over"


class _Over(Exception):  # noqa: N818 - it ends a scope, and is no error
    """Ends the scope of a session that is over."""


class Session:
    """One open session on one node. `start` it, and `close` it when nobody needs it."""

    def __init__(self, session_id: str, host: Host) -> None:
        self.id = session_id
        self.idle_since: float | None = None
        """The monotonic time since when nothing has been going on here, as the node has seen it."""
        self.life = Life.OPEN
        self.failed = False
        """Whether it is over by an error of its own; the node then closes it, and opens the session anew."""
        self.unreadable = False
        """Whether it has failed since this version does not know the format of its log: another try would not help."""
        self._host = host
        self._core = Core(
            session_id,
            host.node,
            self,
            shared=host.store.shared,
            limits=host.settings.limits,
            batch_prefix=f"{secrets.token_hex(8)}-",
            name_epoch=_new_epoch_name,
            failed=self._not_decided,
        )
        self._mailbox = self._core.mailbox
        self._journal = Journal(
            session_id,
            self._core,
            host.store,
            node=host.node,
            clock=host.clock,
            settings=host.settings,
            slices=host.slices,
            waiting=self._reply_late,
        )
        self._catch_ups = CatchUps(session_id, host.slices)
        self.subscribers = Subscribers(self._journal, host.clock, host.settings, self._fell_behind)
        self._workers = Workers(start=functools.partial(host.start_worker, self))
        self.workers: Mapping[str, Worker] = self._workers.by_run
        """Those that work here, by run id, until the work has stopped and is settled."""
        self._timers = Timers(host.clock)
        self._scope: asyncio.TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._worked_on: list[str] = []
        """The runs that were worked on when it was over."""
        self._observers = 0
        """How many watch here, as the store was told."""
        self._looked_in = False
        """Whether somebody has come since, who may have left again."""
        self._presence: asyncio.Task[None] | None = None
        self._compaction: asyncio.Task[None] | None = None
        self._compact_failures = 0
        """In a row."""

    # From outside

    def start(self) -> None:
        """Begins to work: loads the state first."""
        self._ended = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._main(self._ended), name=f"session {self.id}")

    async def close(self) -> None:
        """Ends when what is pending has been committed. Workers must have ended before."""
        if self.life is Life.OPEN:
            self.life = Life.CLOSING
            self._core.closing = True
        self.notify()
        if self._task is not None:
            await asyncio.wait({self._task})  # how it failed, if it did, was logged there

    def abort(self) -> None:
        """Ends at once, where `close` waits for a store that does not answer. Harmless when it has ended."""
        if self._task is not None:
            self._task.cancel()

    @property
    def busy(self) -> bool:
        """Whether anything goes on here: subscribers, workers, or work that waits."""
        return bool(self.subscribers.present or self.workers or self._mailbox.busy)

    @property
    def head(self) -> Head:
        """Where the log stands, as this node knows it."""
        return self._core.head

    @property
    def pending(self) -> bool:
        """Whether commands, chores or output are on their way into the log."""
        return self._mailbox.pending

    @property
    def waiting(self) -> bool:
        """Whether a time is to come that only an open session keeps: an expiry, a deadline, a compaction."""
        return bool(self._timers) or self._compaction is not None

    def submit(self, ask: Ask, reply: Reply) -> None:
        """Brings a command; `reply` is called with its outcome.

        A cancel stops the agent at once if it works here, before anything is in the log.
        """
        if self.life is Life.OVER:
            reply(self._over_error())
            return
        command = ask.command
        halted = False
        if isinstance(command, Cancel) and (ask.principal, command.id) not in self._core.state.memories:
            halted = self._workers.halt(command, self._core.state, self._core.head)
        self._mailbox.command(ask, self._host.clock.monotonic(), reply, halted=halted)
        if "late" not in self._timers:
            self._timers.after("late", self._host.settings.unavailable_ms / 1000, self._watch_replies)
        self.notify()

    def produced(self, worker: Worker) -> None:
        """A worker has output to take."""
        if self.life is not Life.OVER:
            self._mailbox.ready(worker)
            self._host.turns.add(self)

    def chore(self, work: Chore) -> None:
        """Brings work of the server's own; nothing happens to it where the session is over."""
        if self.life is not Life.OVER:
            self._mailbox.chore(work, self._host.clock.monotonic())
            self.notify()

    def store_moved(self) -> None:
        """Another node has appended, or may have: look at the store's head."""
        self._core.moved()
        self.notify()

    def heard(self, before: Head, head: Head, batch: Batch | None) -> None:
        """Another node has appended `batch` behind `before`; without the batch, only that the log ends at `head`."""
        self._core.heard(before, head, batch)
        self.notify()

    def worker_done(self, worker: Worker) -> None:
        """The worker's task has stopped, and everything it had to say has been committed."""
        self._workers.done(worker)
        self.notify()

    # Reads

    async def settled(self) -> None:
        """Returns when everything that came before is in the log, and has been written to those who are live.

        Raises SessionFailedError where the session has failed or was closed. Cancelled, it leaves nothing behind.
        """
        if self.life is Life.OVER:
            raise SessionFailedError(self._over_error().message)
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(error: HoldfastError | None) -> None:
            if settled.done():
                return
            if error is None:
                settled.set_result(None)
            else:
                settled.set_exception(error)

        self._mailbox.read(told)
        self.notify()
        try:
            await settled
        finally:
            self._mailbox.forget(told)

    async def join(self, subscriber: Subscriber, cursor: Cursor | None, welcome: Mapping[str, Any]) -> None:
        """Takes a subscriber in: sends `welcome`, completed, then what it missed, then `caughtUp`; then it is live.

        Returns when it is live for the first time. Cancelled, it may leave the subscriber in: close its wire, and call
        `leave`.
        """
        self._core.moved()
        await self.settled()
        resume = await self.subscribers.join(subscriber, cursor)
        if self.life is Life.OVER:  # since: its end has told everyone who was there, and this one was not yet
            raise SessionFailedError(self._over_error().message)
        head = self._core.head
        subscriber.write({**welcome, "epoch": head.epoch, "head": head.seq, "resume": resume})
        self._looked_in = True
        self._look_around()
        await self._catch_ups.run(self.subscribers, subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Lets a subscriber go. It is no cancel: the runs go on."""
        self.subscribers.leave(subscriber)
        self.notify()

    async def history(self, command_id: str, before: int | None, limit: int) -> AsyncGenerator[dict[str, Any]]:
        """The `page` messages that answer `history`, of this moment and made as they are asked for."""
        await self.settled()
        return pages(await self._journal.cut(before, limit), command_id)

    async def conversation(self, run_id: str) -> list[Message]:
        """The transcript as a run's agent should see it: all messages before its answer, bounded by the settings."""
        settings = self._host.settings
        view = self._core.state.transcript.runs.get(run_id)
        before = None if view is None else view.info.get("startedSeq")
        cut = await self._journal.cut(before, settings.history_messages)
        return await cut.newest(settings.history_bytes).whole()

    def message(self, run_id: str) -> OpenMessage | None:
        """The message of a run that goes on as it is in the log, not to be changed; None where it has ended."""
        run = self._core.state.runs.get(run_id)
        return None if run is None else run.message

    # What the core looks at

    @property
    def traits(self) -> Mapping[str, AgentTraits]:
        """The agents that this node can run."""
        return self._host.traits

    @property
    def accepting(self) -> bool:
        """False while the node is draining."""
        return self._host.accepting

    @property
    def working(self) -> Mapping[str, Worker]:
        """Runs that somebody works on here."""
        return self.workers

    @property
    def watched(self) -> bool:
        """Whether somebody watches through this node."""
        return bool(self.subscribers.present)

    @property
    def left_in_order(self) -> bool:
        """Whether whoever had the store before left it in order."""
        return self._host.store.left_in_order

    # Turns

    def notify(self) -> None:
        """There may be something to do: takes part in the node's next turn."""
        self._host.turns.add(self)

    def decide(self) -> Append | None:
        """The first phase of a turn: does what can be done, and returns what is to be added to the log. Raises nothing.

        Where the store has to be asked something else, that is begun; None then, as where there is nothing to do.
        """
        core, clock = self._core, self._host.clock
        if self.life is Life.OVER or self._scope is None or core.stage is not Stage.IDLE:
            return None
        try:
            while (step := core.next(clock.now(), clock.monotonic())) is not None:
                if isinstance(step, Append):
                    return step
                if not isinstance(step, Landed):
                    self._spawn(self._asked(step), f"ask the store of {self.id}")
                    return None
                self._carry_out(step)
            if self.life is Life.CLOSING and not self._mailbox.busy:
                self._end()
            else:
                self._look_around()
        except Exception as error:
            self._fail(error)
        return None

    def landed(self, append: Append, outcome: Outcome) -> None:
        """The last phase: what became of what `decide` returned. Raises nothing."""
        if self.life is Life.OVER:
            return
        try:
            if isinstance(outcome, StoreUnavailableError):
                self._spawn(self._asked(append, outcome), f"ask the store of {self.id}")
                return
            if isinstance(outcome, Exception):
                raise outcome
            landed = self._core.appended(outcome)
            if landed is not None:
                self._carry_out(landed)
            self._go_on()
        except Exception as error:
            self._fail(error)

    async def _asked(self, question: Question, failed: StoreUnavailableError | None = None) -> None:
        landed = await self._journal.ask(question, failed=failed)
        if self.life is not Life.OVER:
            if landed is not None:
                self._carry_out(landed)
            self._go_on()

    def _go_on(self) -> None:
        self._look_around()
        if self._core.has_mail or self.life is Life.CLOSING:
            self._host.turns.add(self)

    def _look_around(self) -> None:
        """Begins what is due beside the log."""
        if self.life is Life.OVER:
            return
        news = self._looked_in or len(self.subscribers.present) != self._observers
        if news and self._presence is None and self._core.loaded:
            self._presence = self._spawn(self._tell_presence(), f"presence {self.id}")
        if self._journal.heavy and "compact" not in self._timers:
            self._compact()

    def _carry_out(self, landed: Landed) -> None:
        if landed.reset is not None:
            self.subscribers.reset_all(new_epoch=landed.reset)
        if landed.events:
            self._journal.keep(landed.events, landed.encoded)
            self.subscribers.fan_out(landed.events, landed.encoded)
        if landed.opened:
            landed.effects = [*landed.effects, *self._workers.reconciled(self._core.state, self._host.node)]
        for effect in landed.effects:
            chore = self._workers.carry_out(effect)
            if chore is not None:
                self.chore(chore)
        if landed.lifecycle:
            self._after_lifecycle()
        if landed.contended:
            seconds = self._host.settings.contended_hold_ms / 1000
            self._core.held_until = self._host.clock.monotonic() + seconds
            self._timers.after("hold", seconds, self.notify)
        if landed.mail is not None:
            self._tell(landed.mail, landed.unobserved_since)

    def _tell(self, mail: Mail, unobserved_since: int | None) -> None:
        upkeep = False
        for item in mail.items:
            item.tell()
            if isinstance(item.work, Ask):
                if isinstance(item.work.command, Cancel):
                    self._workers.release(item.work.command, self._core.state)
            else:
                upkeep = upkeep or isinstance(item.work, Upkeep)
        if upkeep:
            # It may have come too early to add anything: a long wait is cut, and presence changes without an event.
            self._schedule_upkeep(unobserved_since)
        for worker, outputs in mail.taken:
            worker.committed(outputs)
        for read in mail.reads:
            read(None)

    # What follows

    def _after_lifecycle(self) -> None:
        state = self._core.state
        upkeep = promotable(state, agents=self._host.traits, accepting=self._host.accepting)
        if upkeep is not None:
            self.chore(upkeep)
        if closed_runs(state) and "compact" not in self._timers:
            self._timers.after("compact", self._host.settings.compact_after_ms / 1000, self._compact)
        self._schedule_upkeep(None)
        if abandonable(state) and not self.watched:
            self._observers = -1  # the presence is read anew, which the due time depends on

    def _schedule_upkeep(self, unobserved_since: int | None) -> None:
        clock = self._host.clock
        wait_ms = self._core.wake_after_ms(clock.now(), clock.monotonic(), unobserved_since)
        if wait_ms is None:
            self._timers.cancel("upkeep")
        else:
            self._timers.after("upkeep", wait_ms / 1000, functools.partial(self.chore, Upkeep()))

    async def _tell_presence(self) -> None:
        """Tells the store who watches here, until it knows."""
        try:
            while (observers := len(self.subscribers.present)) != self._observers or self._looked_in:
                # Who has looked in starts the time anew in which nobody watches.
                observers, self._looked_in = max(observers, int(self._looked_in)), False
                await self._journal.observe(observers)
                self._observers = observers
            if not observers and abandonable(self._core.state):
                self._schedule_upkeep(await self._journal.unobserved_since())
        finally:
            self._presence = None

    def _compact(self) -> None:
        if self._compaction is None:
            self._compaction = self._spawn(self._compact_log(), f"checkpoint {self.id}")

    async def _compact_log(self) -> None:
        try:
            await self._journal.compact()
        except StoreError as error:
            # Nearly full, it may still take what is appended, which does not wait for this.
            pause = self._host.settings.compact_after_ms / 1000 * 2**self._compact_failures
            seconds = min(pause, _LONGEST_COMPACT_PAUSE_SECONDS)
            self._compact_failures = min(self._compact_failures + 1, 16)
            _log.warning("session not compacted", session=self.id, error=str(error), retry_seconds=seconds)
            self._timers.after("compact", seconds, self._compact)
        else:
            self._compact_failures = 0
        finally:
            self._compaction = None

    def _fell_behind(self, subscriber: Subscriber) -> None:
        self._spawn(self._catch_ups.watched(self.subscribers, subscriber), f"catch up {subscriber.connection}")

    # The end

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        assert self._scope is not None, "a session that was started has a scope"
        return self._scope.create_task(work, name=name)

    async def _main(self, ended: asyncio.Future[None]) -> None:
        try:
            async with asyncio.TaskGroup() as self._scope:
                self.notify()
                try:
                    await ended
                finally:
                    self._end()  # before anything in the scope is ended
                raise _Over
        except* _Over:
            """Everything in the scope has ended."""
        except* Exception as errors:
            for error in errors.exceptions:
                self._log_failure(error)

    def _fail(self, error: BaseException) -> None:
        """Ends by an error of its own. Its log is as it was."""
        if self.life is not Life.OVER:
            self._log_failure(error)
            self._end()

    def _log_failure(self, error: BaseException) -> None:
        if isinstance(error, UnknownFormatError):
            self.unreadable = True
            _log.warning("session not opened", session=self.id, node=self._host.node, error=str(error))
            return
        head = self._core.head
        _log.error(
            "session failed",
            session=self.id,
            node=self._host.node,
            epoch=head.epoch,
            seq=head.seq,
            runs=self._worked_on or list(self.workers),
            exc_info=error,
        )

    def _end(self) -> None:
        """Nothing is taken any more, however it came to that, and whoever waits for something is told."""
        if self.life is Life.OVER:
            return
        self.failed = self.life is Life.OPEN
        self.life = Life.OVER
        self._worked_on = list(self.workers)
        error = self._over_error()
        self._mailbox.refuse_all(error, SessionFailedError(error.message))
        self._workers.drop_all()
        if self.failed:
            for subscriber in list(self.subscribers.present):
                subscriber.wire.close(CloseCode.STORE_UNAVAILABLE, "the session failed here")
        self.subscribers.close()
        self._timers.clear()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _over_error(self) -> CommandError:
        """What whoever asks is told. What was being appended may be in the log: the same id may be sent again."""
        reason = (
            "the session failed on this server, whose log has the reason"
            if self.failed
            else "the session was closed here"
        )
        return CommandError("unavailable", reason, retry_after_ms=1000)

    def _not_decided(self, work: Work, error: Exception) -> None:
        _log.error("deciding failed", session=self.id, work=type(work).__name__, exc_info=error)

    # Telling late

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
        error = CommandError("unavailable", "the store does not answer", retry_after_ms=1000)
        self._mailbox.refuse_older(oldest, error)


def _new_epoch_name() -> str:
    """A random name for a numbering."""
    return secrets.token_urlsafe(6)
