"""Who watches a session, and how what was committed reaches them.

Used by the session's actor only. Frames are built once for all subscribers of an encoding and written straight to the
wires that take them; the others catch up by jobs of their own, so that no reader can slow another one or an agent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from holdfast.protocol.codec import MSGPACK_CODEC, Codec
from holdfast.protocol.commands import Cursor
from holdfast.protocol.control import Resume
from holdfast.protocol.events import Event
from holdfast.server.clock import Clock, Timer
from holdfast.server.session.cuts import snapshots
from holdfast.server.session.journal import Journal
from holdfast.server.session.paging import merged
from holdfast.server.session.subscriber import Subscriber, Wire
from holdfast.server.settings import SessionSettings

_PRESENCE_ENTRIES: Final = 50
_FAN_OUT_BYTES: Final = 256 * 1024
"""Of a batch, written to a live subscriber in one go: it falls behind in the middle of a larger one if it must."""


class Subscribers:
    """The subscribers of one session on this node.

    `lag` is called for a live subscriber that falls behind; its catch-up is then the caller's to run.
    """

    def __init__(
        self, journal: Journal, clock: Clock, settings: SessionSettings, lag: Callable[[Subscriber], None]
    ) -> None:
        self.present: dict[Subscriber, None] = {}
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._lag = lag
        self._presence_timer: Timer | None = None
        self._presence_at = 0.0
        self._closed = False

    # Live

    def fan_out(self, events: Sequence[Event], encoded: Sequence[bytes]) -> None:
        """Writes committed events to everyone who is live. `encoded` is their msgpack."""
        if not self.present:
            return
        if len(events) == 1 or sum(map(len, encoded)) <= _FAN_OUT_BYTES:
            self._fan_out(events, encoded)
            return
        start = size = 0
        for index, payload in enumerate(encoded):
            size += len(payload)
            if size > _FAN_OUT_BYTES and index > start:
                self._fan_out(events[start:index], encoded[start:index])
                start, size = index, len(payload)
        self._fan_out(events[start:], encoded[start:])

    def _fan_out(self, events: Sequence[Event], encoded: Sequence[bytes]) -> None:
        # Of everything that a chunk costs only this is paid for each subscriber: there is nothing in it but the write.
        last = events[-1]["seq"]
        codec: Codec | None = None
        frames = b""
        built: dict[Codec, bytes] = {}
        for subscriber in self.present:
            if subscriber.behind:
                continue
            wire = subscriber.wire
            transmit = wire.transmit
            if transmit is None:
                subscriber.behind = True
                self._lag(subscriber)
                continue
            if wire.codec is not codec:
                codec = wire.codec
                if codec not in built:
                    built[codec] = _frames(wire, events, encoded)
                frames = built[codec]
            transmit(frames)
            subscriber.seq = last

    def reset_all(self, *, new_epoch: bool) -> None:
        """Everyone needs a snapshot; one that announces it where the epoch is new."""
        for subscriber in self.present:
            subscriber.snapshot = True
            subscriber.reset = subscriber.reset or new_epoch
            if not subscriber.behind:
                subscriber.behind = True
                self._lag(subscriber)

    # Joining and catching up

    async def join(self, subscriber: Subscriber, cursor: Cursor | None) -> Resume:
        """Takes a subscriber in, behind; how it will be brought to the head."""
        journal = self._journal
        resume: Resume
        if cursor is None:
            resume = "snapshot"
        elif (
            cursor.epoch == journal.head.epoch
            and cursor.seq <= journal.head.seq
            and await journal.is_at(cursor.seq, cursor.at)
            and cursor.epoch == journal.head.epoch  # still
        ):
            resume = "tail"
            subscriber.seq = cursor.seq
        else:
            resume = "reset"
        subscriber.snapshot = resume != "tail"
        subscriber.reset = cursor is not None and cursor.epoch != journal.head.epoch
        if not subscriber.wire.closed:  # else it has left already, while the store was read
            self.present[subscriber] = None
            self.presence_changed()
        return resume

    def leave(self, subscriber: Subscriber) -> None:
        """Lets a subscriber go. Harmless when it has gone."""
        if self.present.pop(subscriber, subscriber) is None:
            self.presence_changed()

    async def advance(
        self, subscriber: Subscriber
    ) -> AsyncGenerator[Mapping[str, Any]] | Iterator[Mapping[str, Any]] | None:
        """The next messages for a subscriber that is behind; None when it has just gone live.

        They are made as they are asked for, and of one moment all the same. Behind them it stands where the last of
        them says.
        """
        journal = self._journal
        if not subscriber.snapshot:
            if journal.head.seq - subscriber.seq > self._settings.snapshot_beyond:
                subscriber.snapshot = True
            else:
                events = await journal.events(subscriber.seq, max_bytes=self._settings.catch_up_bytes)
                if events is None or subscriber.snapshot:
                    subscriber.snapshot = True
                elif not events:
                    subscriber.caught_up(journal.state.at)
                    return None
                else:
                    subscriber.seq = events[-1]["seq"]
                    return merged(events)
        reset, subscriber.snapshot, subscriber.reset = subscriber.reset, False, False
        runs = [run.snapshot() for run in journal.state.transcript.runs.values()]
        cut = await journal.cut(None, subscriber.messages)  # of the moment in which it is asked for
        subscriber.seq = cut.seq
        return snapshots(cut, reset=reset, runs=runs)

    # Presence

    def presence_changed(self) -> None:
        """Tells everyone who is here, soon, and at most once in a while."""
        if self._presence_timer is not None or not self.present or self._closed:
            return
        due = self._presence_at + self._settings.presence_every_ms / 1000 - self._clock.monotonic()
        self._presence_timer = self._clock.call_later(max(0.0, due), self._send_presence)

    def _send_presence(self) -> None:
        self._presence_timer = None
        self._presence_at = self._clock.monotonic()
        message = presence(self.present)
        for subscriber in list(self.present):
            subscriber.control(message)

    def close(self) -> None:
        """Stops the timer. Subscribers may still leave."""
        self._closed = True
        if self._presence_timer is not None:
            self._presence_timer.cancel()
            self._presence_timer = None


def _frames(wire: Wire, events: Sequence[Event], encoded: Sequence[bytes]) -> bytes:
    """The frames of these events for every wire with the codec of this one."""
    codec = wire.codec
    payloads = encoded if codec is MSGPACK_CODEC else [codec.encode(event) for event in events]
    return wire.frame(payloads[0]) if len(payloads) == 1 else b"".join(map(wire.frame, payloads))


def presence(subscribers: Iterable[Subscriber]) -> dict[str, Any]:
    """The `presence` message for these subscribers."""
    everyone = list(subscribers)
    return {
        "type": "presence",
        "devices": [
            {
                "connection": subscriber.connection,
                "device": subscriber.device,
                "principal": subscriber.principal,
                "since": subscriber.since,
            }
            for subscriber in everyone[:_PRESENCE_ENTRIES]
        ],
        "total": len(everyone),
    }
