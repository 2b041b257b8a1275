"""A session's log as its store has it: asked until it answers, read for those who come, and kept short.

Whatever the store does not answer is asked again, unchanged, until it does. What is read is read beside the session's
work: the state that a reader sees is always exactly the log up to the head.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeVar

import structlog

from holdfast.protocol.events import Event, Message
from holdfast.protocol.messages import OpenMessage
from holdfast.server.clock import Clock, pause
from holdfast.server.errors import StoreUnavailableError
from holdfast.server.registry import Compaction, SessionState, compact, fold, loading
from holdfast.server.session.core import CatchUp, Check, Core, Found, Landed, Look, Open, Question, Renumber
from holdfast.server.session.cuts import Cut, as_it_is
from holdfast.server.session.records import (
    decode_batch,
    decode_value,
    decoding_checkpoint,
    encode_value,
    encoding_checkpoint,
    encoding_message,
)
from holdfast.server.session.slices import Slices
from holdfast.server.settings import SessionSettings
from holdfast.server.store import Append, Checkpoint, Head, Log, Store, StoredMessage, StoredSize

_T = TypeVar("_T")
_EVENT_WEIGHT: Final = 512
"""What an event counts at least when the log behind a checkpoint is weighed: folding a short one costs as much."""
_RETRY_SECONDS: Final = (0.02, 0.05, 0.1, 0.25, 0.5)
_log = structlog.get_logger("holdfast.session")


class Journal:
    """The store of one session, and the events that came last.

    `waiting` is called before every further try at a store that does not answer.
    """

    def __init__(
        self,
        session: str,
        core: Core,
        store: Store,
        *,
        node: str,
        clock: Clock,
        settings: SessionSettings,
        slices: Slices,
        waiting: Callable[[], None],
    ) -> None:
        self.session = session
        self._core = core
        self._store = store
        self._node = node
        self._clock = clock
        self._settings = settings
        self._slices = slices
        self._waiting = waiting
        self._behind_checkpoint = 0
        """The weight of the log that whoever opens the session has to fold."""
        self._checkpoint_bytes = 0
        self._recent: list[Event] = []
        self._recent_bytes: list[int] = []
        self._recent_total = 0

    @property
    def state(self) -> SessionState:
        """The fold of exactly the log up to `head`."""
        return self._core.state

    @property
    def head(self) -> Head:
        """Where the log ends, as this node knows it."""
        return self._core.head

    # What the core asks

    async def ask(self, question: Question, *, failed: StoreUnavailableError | None = None) -> Landed | None:
        """Gets the store's answer, however long it takes, and hands it to the core; what is to be done then.

        `failed` is how an append has gone once already. Raises StoreError where asking again does not help.
        """
        core, store, session = self._core, self._store, self.session
        match question:
            case Open():
                return await self._open()
            case Look():
                core.looked(await self._found(question))
            case Append():
                tries = 0 if failed is None else 1

                async def append() -> Any:
                    nonlocal tries
                    tries += 1
                    expected, batch, owed = question.expected, question.batch, question.owed
                    return await store.append(session, expected, batch, node=question.node, owed=owed)

                result = await self._until_available(append, failed=failed)
                return core.appended(result, sure=tries == 1)
            case Check():
                core.checked(await self._until_available(lambda: store.head(session, watcher=self._watcher)))
            case CatchUp(head):
                after = max(0, head.seq - 1)
                return core.caught_up(await self._until_available(lambda: store.read(session, after)))
            case Renumber(expected, epoch, seq):
                had = core.head.seq
                _log.warning("store lost events", session=session, had=had, has=expected.seq, epoch=epoch)
                await self._until_available(lambda: store.new_epoch(session, expected, epoch, seq))
                core.renumbered()
        return None

    @property
    def _watcher(self) -> str | None:
        return self._node if self._store.shared else None

    async def _open(self) -> Landed | None:
        epoch = self._core.name_epoch()
        log = await self._until_available(lambda: self._store.open(self.session, epoch, watcher=self._watcher))
        before = self.head
        landed = self._core.opened(log, await self._slices.run(_folding(log)))
        if landed is not None:
            if self.head.epoch != before.epoch or self.head.seq != before.seq:
                self._forget_recent()
            self._checkpoint_bytes = len(log.checkpoint.payload) if log.checkpoint else 0
            self._behind_checkpoint = sum(
                len(batch.payload) + _EVENT_WEIGHT * (batch.last_seq - batch.first_seq + 1) for batch in log.batches
            )
        return landed

    async def _found(self, look: Look) -> Found:
        return Found(
            archive=await self._records(look.keys) if look.keys else {},
            live=await self._until_available(self._store.live) if look.leases else {},
            unobserved_since=await self.unobserved_since() if look.presence else None,
        )

    async def _records(self, keys: Sequence[str]) -> Mapping[str, Any]:
        found = await self._until_available(lambda: self._store.find(self.session, keys))
        return {key: decode_value(payload) for key, payload in found.items()}

    def keep(self, events: Sequence[Event], encoded: Sequence[bytes]) -> None:
        """Takes note of what has landed: these events, as msgpack."""
        recent, settings = self._recent, self._settings
        recent.extend(events)
        sizes = [*map(len, encoded)]
        self._recent_bytes.extend(sizes)
        total = sum(sizes)
        self._recent_total += total
        self._behind_checkpoint += total + _EVENT_WEIGHT * len(events)
        # Half goes at once, so that letting go costs next to nothing per event.
        if len(recent) > settings.recent_events or self._recent_total > settings.recent_bytes:
            while self._recent and (
                len(self._recent) > settings.recent_events // 2 or self._recent_total > settings.recent_bytes // 2
            ):
                drop = max(1, len(self._recent) // 4)
                self._recent_total -= sum(self._recent_bytes[:drop])
                del self._recent[:drop], self._recent_bytes[:drop]

    def _forget_recent(self) -> None:
        self._recent, self._recent_bytes, self._recent_total = [], [], 0

    # Reading

    async def events(self, after: int, *, max_bytes: int | None = None) -> list[Event] | None:
        """Committed events behind `after`, in order; about `max_bytes` of them. None where they were trimmed."""
        last = self.head.seq
        if after >= last:
            return []
        recent = self._recent
        if recent and recent[0]["seq"] <= after + 1 and recent[-1]["seq"] >= last:
            start = after + 1 - recent[0]["seq"]
            return self._cut(recent[start : last + 1 - recent[0]["seq"]], start, max_bytes)
        events: list[Event] = []
        taken = 0.0
        epoch = self.head.epoch
        while after < last:
            tail = await self._until_available(partial(self._store.read, self.session, after))
            if tail.floor > after or not tail.batches or tail.head.epoch != epoch:
                return None
            for batch in tail.batches:
                weight = len(batch.payload) / (batch.last_seq - batch.first_seq + 1)
                for record in decode_batch(batch.payload):
                    if after < record.event["seq"] <= last:
                        if record.event["seq"] != after + 1:
                            return None
                        if max_bytes is not None and events and taken + weight > max_bytes:
                            return events  # one batch may hold much more than was asked for
                        events.append(record.event)
                        taken += weight
                        after = record.event["seq"]
            if max_bytes is not None:
                break
        return events

    def _cut(self, events: list[Event], start: int, max_bytes: int | None) -> list[Event]:
        if max_bytes is None:
            return events
        total = 0
        for index, size in enumerate(self._recent_bytes[start : start + len(events)]):
            total += size
            if total > max_bytes:
                return events[: index + 1]
        return events

    async def is_at(self, seq: int, at: int | None) -> bool:
        """Whether the log's event `seq` can be had and carries the time `at`; seq 0 is the beginning."""
        if seq == self.head.seq:
            return at == self.state.at or (seq == 0 and at is None)
        if seq == 0:
            first = await self.events(0, max_bytes=1)
            return first is not None
        found = await self.events(seq - 1, max_bytes=1)
        return found is not None and len(found) > 0 and found[0]["at"] == at

    async def cut(self, before: int | None, limit: int) -> Cut:
        """The `limit` last transcript messages before the seq `before`, as they are now; they are read later."""
        head, state = self.head, self.state
        # Other nodes may have archived more than this state has folded.
        before = head.seq + 1 if before is None else min(before, head.seq + 1)
        held: dict[str, tuple[int, Message | OpenMessage | StoredSize]] = {}
        for message in state.transcript.finished():
            held[message["id"]] = (message["seq"], message)
        for run in state.transcript.runs.values():
            if run.message is not None:
                held[run.message.fields["id"]] = (run.message.fields["seq"], as_it_is(run.message))
        at, archived = state.at, state.archived or bool(state.marks)
        # From here on the state may move on; what is archived meanwhile is held, too.
        sizes: list[StoredSize] = []
        if archived:
            sizes = await self._until_available(lambda: self._store.message_sizes(self.session, before, limit + 1))
        found = {size.message_id: (size.seq, size) for size in sizes} | held
        ordered = sorted((item for item in found.values() if item[0] < before), key=itemgetter(0))
        return Cut(
            epoch=head.epoch,
            seq=head.seq,
            at=at,
            messages=[message for _, message in ordered[-limit:]] if limit else [],
            more=len(ordered) > limit,
            archive=self,
            slices=self._slices,
        )

    async def archived(self, before: int, limit: int) -> list[StoredMessage]:
        """See `Archive`. Like the next one it may be called at any time, and beside the actor's calls."""
        return await self._until_available(lambda: self._store.messages(self.session, before, limit))

    async def archived_piece(self, seq: int, start: int, size: int) -> bytes:
        """See `Archive`."""
        return await self._until_available(lambda: self._store.message_piece(self.session, seq, start, size))

    async def observe(self, observers: int) -> None:
        """Tells the store how many watch the session through this node."""
        await self._until_available(lambda: self._store.observe(self.session, self._node, observers))

    async def unobserved_since(self) -> int | None:
        """Since when nobody has watched through any node; None if somebody does."""
        return await self._until_available(lambda: self._store.unobserved_since(self.session))

    # Compaction

    @property
    def heavy(self) -> bool:
        """Whether so much lies behind the last checkpoint that another one is due, while runs go on or not.

        Twice the size of the last one at least: what checkpoints of a long answer cost stays in proportion to its log.
        """
        return self._behind_checkpoint >= max(self._settings.checkpoint_bytes, 2 * self._checkpoint_bytes)

    async def compact(self) -> None:
        """Writes a checkpoint at the head, archives what has ended, trims what is older than the replay window.

        Tried once: raises StoreError where the store did not do it. It may have been done all the same; the next one
        writes everything again. The log goes on meanwhile.
        """
        epoch, state = self.head.epoch, self.state
        compaction = compact(state, now=self._clock.now(), replay_window_ms=self._settings.replay_window_ms)
        behind, self._behind_checkpoint = self._behind_checkpoint, 0
        try:
            messages, records, payload = await self._slices.run(_encoding(compaction))
            written = await self._store.compact(
                self.session,
                epoch,
                Checkpoint(compaction.seq, payload),
                messages=messages,
                records=records,
                trim_to=compaction.trim_to,
            )
        except BaseException:
            self._behind_checkpoint += behind
            raise
        if written and self.head.epoch == epoch:  # else the log has become another one, which was loaded anew
            self._core.compacted(compaction)
            self._checkpoint_bytes = len(payload)

    # Inside

    async def _until_available(
        self, call: Callable[[], Awaitable[_T]], *, failed: StoreUnavailableError | None = None
    ) -> _T:
        """Repeats a call until the store answers it; `failed` is how it has gone once already."""
        tries = 0
        while True:
            if failed is not None:
                if tries == 0:
                    _log.warning("store unavailable", session=self.session, error=str(failed))
                self._waiting()
                await pause(self._clock, _RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
                tries += 1
            try:
                return await call()
            except StoreUnavailableError as error:
                failed = error


def _folding(log: Log) -> Generator[None, None, SessionState]:
    state = SessionState("")
    if log.checkpoint:
        state = yield from loading((yield from decoding_checkpoint(log.checkpoint.payload)))
    for batch in log.batches:
        for record in decode_batch(batch.payload):
            if record.event["seq"] > state.seq + 1:
                state.transcript.seq = record.event["seq"] - 1  # a new epoch numbers on above the lost events
            if record.event["seq"] > state.seq:
                fold(state, record)
            yield
    state.transcript.epoch = log.head.epoch
    state.transcript.seq = log.head.seq
    return state


def _encoding(
    compaction: Compaction,
) -> Generator[None, None, tuple[list[StoredMessage], dict[str, bytes], bytes]]:
    messages: list[StoredMessage] = []
    for message in compaction.messages:
        payload = yield from encoding_message(message)
        messages.append(StoredMessage(message["seq"], message["id"], payload))
    records: dict[str, bytes] = {}
    for key, record in compaction.records.items():
        records[key] = encode_value(record)
        yield
    return messages, records, (yield from encoding_checkpoint(compaction.checkpoint))
