"""A session's log as one actor works with it: the folded state, and the store behind it.

The state runs ahead of the store by what is being appended, never by more. Whatever the store does not answer is asked
again, unchanged, until it does: nothing else of the session happens here meanwhile, so an append whose outcome is
unknown is never followed by another one.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeVar

import structlog

from holdfast.protocol.codec import MSGPACK_CODEC
from holdfast.protocol.events import Event, Message
from holdfast.protocol.messages import OpenMessage
from holdfast.server.clock import Clock, pause
from holdfast.server.registry import (
    Compaction,
    Phase,
    Record,
    SessionState,
    compact,
    compacted,
    due_times,
    fold,
    loading,
)
from holdfast.server.session.cuts import Cut, as_it_is
from holdfast.server.session.records import (
    decode_batch,
    decode_value,
    decoding_checkpoint,
    encode_batch,
    encode_value,
    encoding_checkpoint,
    encoding_message,
)
from holdfast.server.session.slices import Slices
from holdfast.server.settings import SessionSettings
from holdfast.server.store import (
    NO_LOG,
    NOTHING_OWED,
    Appended,
    Batch,
    Checkpoint,
    Conflict,
    Head,
    LiveNode,
    Log,
    Owed,
    Store,
    StoredMessage,
    StoredSize,
    StoreUnavailable,
)

_T = TypeVar("_T")
_READ_BATCHES: Final = 1_000
_LEAST_EVENT_BYTES: Final = 64
_EVENT_WEIGHT: Final = 512
"""What an event counts at least when the log behind a checkpoint is weighed: folding a short one costs as much."""
_RETRY_SECONDS: Final = (0.02, 0.05, 0.1, 0.25, 0.5)
_log = structlog.get_logger("holdfast.session")


class Journal:
    """The state of one session and its store. Used by the session's actor only, one call at a time.

    `waiting` is called before every further try at a store that does not answer.
    """

    def __init__(
        self,
        session: str,
        store: Store,
        *,
        node: str,
        clock: Clock,
        settings: SessionSettings,
        slices: Slices,
        waiting: Callable[[], None],
    ) -> None:
        self.session = session
        self.state = SessionState("")
        """With what is being appended; between two commits it is what the store has."""
        self.head: Head = NO_LOG
        """The log's head when this node last read it or appended to it; the state is the fold of exactly that log."""
        self.contended = False
        """Whether another node lost a race against the last append."""
        self._owed = NOTHING_OWED
        self._store = store
        self._node = node
        self._clock = clock
        self._settings = settings
        self._slices = slices
        self._waiting = waiting
        self._behind_checkpoint = 0
        """The weight of the log that whoever opens the session has to fold."""
        self._checkpoint_bytes = 0
        self._ended_epochs: set[str] = set()
        """Epochs that were replaced while this node had the session open: one for every time its store lost data."""
        # A batch's name is asked for at every append: randomness for each would be a tenth of what a chunk costs.
        self._batch_prefix = f"{secrets.token_hex(8)}-"
        self._batch_numbers = itertools.count(1)
        self._failures = 0
        """How often the store was unavailable so far."""
        self._recent: list[Event] = []
        self._recent_bytes: list[int] = []
        self._recent_total = 0

    # The log

    async def load(self) -> None:
        """Folds the state from the store; creates the log if there is none."""
        await self._adopt(await self._open())

    async def append(self, records: Sequence[Record], encoded: Sequence[bytes]) -> bool:
        """Appends what the state has been moved on by, with its events as msgpack; whether it is in the log.

        If not, another writer was first: nothing was added, and the state must be folded anew (`reload`).
        """
        batch = Batch(
            batch_id=f"{self._batch_prefix}{next(self._batch_numbers)}",
            first_seq=records[0].event["seq"],
            last_seq=records[-1].event["seq"],
            payload=encode_batch(records, encoded),
        )
        if any(record.event["type"] != "run.chunk" for record in records):
            self._owed = owed(self.state)
        failures = self._failures

        def append() -> Awaitable[Appended | Conflict]:
            return self._store.append(self.session, self.head, batch, node=self._node, owed=self._owed)

        try:
            result = await append()
        except StoreUnavailable as error:
            result = await self._until_available(append, failed=error)
        if isinstance(result, Conflict):
            # A try whose reply was lost may have been accepted, and others may have appended behind it.
            if self._failures == failures or not await self._has_batch(batch):
                return False
        else:
            self.contended = result.contended
        self.head = Head(self.head.epoch, batch.last_seq, batch.batch_id)
        self._behind_checkpoint += len(batch.payload) + _EVENT_WEIGHT * len(records)
        self._keep([record.event for record in records], encoded)
        return True

    async def _has_batch(self, batch: Batch) -> bool:
        tail = await self._until_available(lambda: self._store.read(self.session, batch.first_seq - 1, count=1))
        return any(found.batch_id == batch.batch_id for found in tail.batches)

    async def reload(self) -> list[Event] | None:
        """Folds the state anew from the store, and returns the events that this node had not seen.

        None where there is no telling: the log has a new epoch, or the missed events were trimmed, or they are more
        than are kept in memory. Every subscriber then needs a snapshot. A store that has lost what it had accepted gets
        a new epoch here.
        """
        before = self.head
        log = await self._open()
        while await self._lost(log.head):
            expected, epoch, seq = log.head, new_epoch_name(), max(before.seq, log.head.seq)
            _log.warning("store lost events", session=self.session, had=before.seq, has=expected.seq, epoch=epoch)
            await self._until_available(partial(self._store.new_epoch, self.session, expected, epoch, seq))
            log = await self._open()
        await self._adopt(log)
        if self.head.epoch != before.epoch:
            return None
        missed = None
        if self.head.seq - before.seq <= self._settings.recent_events:
            missed = await self.events(before.seq)
        if missed is None:
            self._forget_recent()
            return None
        self._keep(missed, [MSGPACK_CODEC.encode(event) for event in missed])
        return missed

    async def moved_on(self) -> bool:
        """Whether the store's head is not the one this node knows. One read; for stores that others use too."""
        if not self._store.shared:
            return False
        return await self._until_available(lambda: self._store.head(self.session, watcher=self._node)) != self.head

    async def _lost(self, now: Head) -> bool:
        """Whether a log that stands at `now` lacks what this node has folded.

        It may have been rolled back to an epoch that this node saw end, or have been written on by others after it
        was rolled back: the batch at our head is then another one.
        """
        before = self.head
        if now.epoch != before.epoch:
            return now.epoch in self._ended_epochs or now.seq < before.seq
        if now.seq < before.seq:
            return True
        if now == before or before.seq == 0:
            return False
        tail = await self._until_available(lambda: self._store.read(self.session, before.seq - 1, count=1))
        if tail.floor >= before.seq or not tail.batches:
            return False
        at_head = tail.batches[0]
        # Where no batch holds our head it is the seq that the epoch began at.
        return at_head.first_seq <= before.seq and at_head.batch_id != before.batch_id

    async def _open(self) -> Log:
        """What the store has of the session, with a new epoch where it may have lost something unnoticed."""
        log = await self._open_as_it_is()
        while log.suspect:
            epoch = new_epoch_name()
            _log.warning("store may have lost events", session=self.session, has=log.head.seq, epoch=epoch)
            await self._until_available(partial(self._store.new_epoch, self.session, log.head, epoch, log.head.seq))
            log = await self._open_as_it_is()
        return log

    async def _open_as_it_is(self) -> Log:
        return await self._until_available(lambda: self._store.open(self.session, new_epoch_name(), watcher=self._node))

    async def _adopt(self, log: Log) -> None:
        state = await self._slices.run(self._folding(log))
        if log.head.epoch != self.head.epoch:
            self._ended_epochs.add(self.head.epoch)
            self._forget_recent()
        self.state, self.head, self._owed = state, log.head, owed(state)
        self._checkpoint_bytes = len(log.checkpoint.payload) if log.checkpoint else 0
        self._behind_checkpoint = sum(
            len(batch.payload) + _EVENT_WEIGHT * (batch.last_seq - batch.first_seq + 1) for batch in log.batches
        )

    def _folding(self, log: Log) -> Generator[None, None, SessionState]:
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
        while after < last:
            count = _READ_BATCHES if max_bytes is None else max(1, min(_READ_BATCHES, max_bytes // _LEAST_EVENT_BYTES))
            tail = await self._until_available(partial(self._store.read, self.session, after, count=count))
            if tail.floor > after or not tail.batches or tail.head.epoch != self.head.epoch:
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
        # Other nodes may have archived more than this state has folded.
        before = self.head.seq + 1 if before is None else min(before, self.head.seq + 1)
        transcript = self.state.transcript
        open_messages = [run.message for run in transcript.runs.values() if run.message is not None]
        found: dict[str, tuple[int, Message | OpenMessage | StoredSize]] = {}
        if self.state.archived or self.state.marks:
            sizes = await self._until_available(lambda: self._store.message_sizes(self.session, before, limit + 1))
            found = {size.message_id: (size.seq, size) for size in sizes}
        for message in transcript.finished():
            found[message["id"]] = (message["seq"], message)
        for open_message in open_messages:
            found[open_message.fields["id"]] = (open_message.fields["seq"], open_message)
        ordered = sorted((item for item in found.values() if item[0] < before), key=itemgetter(0))
        messages = [message for _, message in ordered[-limit:]] if limit else []
        return Cut(
            epoch=self.head.epoch,
            seq=self.head.seq,
            at=self.state.at,
            messages=[as_it_is(message) if isinstance(message, OpenMessage) else message for message in messages],
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

    async def find(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """The archive's records for `keys`."""
        if not keys:
            return {}
        found = await self._until_available(lambda: self._store.find(self.session, keys))
        return {key: decode_value(payload) for key, payload in found.items()}

    async def live(self) -> Mapping[str, LiveNode]:
        """Nodes whose lease is in force, and what each says of itself."""
        return await self._until_available(self._store.live)

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

        Twice the size of the last one at least: what checkpoints of a long message cost stays in proportion to its log.
        """
        return self._behind_checkpoint >= max(self._settings.checkpoint_bytes, 2 * self._checkpoint_bytes)

    async def compact(self) -> None:
        """Writes a checkpoint at the head, archives what has ended, trims what is older than the replay window.

        Tried once, since it holds up what is to be appended: raises StoreError where the store did not do it. It may
        have been done all the same; the next one writes everything again.
        """
        compaction = compact(self.state, now=self._clock.now(), replay_window_ms=self._settings.replay_window_ms)
        messages, records, payload = await self._slices.run(_encoding(compaction))
        written = await self._store.compact(
            self.session,
            self.head.epoch,
            Checkpoint(compaction.seq, payload),
            messages=messages,
            records=records,
            trim_to=compaction.trim_to,
        )
        self._behind_checkpoint = 0  # where it was not written, the log has become another one, which is loaded anew
        if written:
            compacted(self.state, compaction)
            self._checkpoint_bytes = len(payload)

    # Inside

    async def _until_available(
        self, call: Callable[[], Awaitable[_T]], *, failed: StoreUnavailable | None = None
    ) -> _T:
        """Repeats a call until the store answers it; `failed` is how it has gone once already."""
        tries = 0
        while True:
            if failed is not None:
                self._failures += 1
                if tries == 0:
                    _log.warning("store unavailable", session=self.session, error=str(failed))
                self._waiting()
                await pause(self._clock, _RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
                tries += 1
            try:
                return await call()
            except StoreUnavailable as error:
                failed = error

    def _keep(self, events: Sequence[Event], encoded: Sequence[bytes]) -> None:
        self._recent.extend(events)
        for item in encoded:
            size = len(item)
            self._recent_bytes.append(size)
            self._recent_total += size
        settings = self._settings
        # Half goes at once, so that letting go costs next to nothing per event.
        if len(self._recent) > settings.recent_events or self._recent_total > settings.recent_bytes:
            while self._recent and (
                len(self._recent) > settings.recent_events // 2 or self._recent_total > settings.recent_bytes // 2
            ):
                drop = max(1, len(self._recent) // 4)
                self._recent_total -= sum(self._recent_bytes[:drop])
                del self._recent[:drop], self._recent_bytes[:drop]

    def _forget_recent(self) -> None:
        self._recent, self._recent_bytes, self._recent_total = [], [], 0


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


def owed(state: SessionState) -> Owed:
    """What the index is to say of a session."""
    owners = frozenset(run.node for run in state.runs.values() if run.active or run.phase is Phase.STOPPING)
    return Owed(owners, bool(state.queue) and state.main is None, min(due_times(state).values(), default=None))


def new_epoch_name() -> str:
    """A random name for a numbering."""
    return secrets.token_urlsafe(6)
