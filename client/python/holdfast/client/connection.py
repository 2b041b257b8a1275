"""The client's side of a session, without I/O and without a clock.

Theory of operation. A session is a log, and this side is a copy of its beginning: the fold of everything up to a
position. Three rules keep it true over any network.

* It believes only what follows. `TABLE` in `phases` says which message may come in which phase; an event must be the
  next one after what is held, and a head that the server names must not lie beyond it. Anything else is *lost contact*:
  the connection is dropped and the next one begins at the position held. Nothing is ever guessed or repaired.
* A connection knows nothing. What outlives one is the fold, and the outbox: each command stays there until its reply
  has come, and is written again, with the same id and the same bytes, on every connection after the `welcome`. The
  server remembers ids, so a command that arrives twice is done once.
* Silence is an end. The server is heard at least once per heartbeat; two of them without a word are lost contact too.

A connection goes through OPENING (the shell opens a socket), GREETING (`hello` is written; the server tells from the
position in it what it will send), SNAPSHOT or TAIL (the log is caught up), and LIVE (up to the server's head). When it
ends, a close code or a failed try says whether there is a next one; `backoff` says when.

If a message could not be understood, the fold may have stopped half way through it: then the next `hello` names no
position, and a snapshot replaces everything (`_fresh`).

The shell around it tells what happens - `opening`, `opened`, `received`, `closed`, `submit`, `tick` - with the time
in seconds of a clock that never goes back. After each of these it takes what came of it:

* `frames()`   to be written to the socket, in order;
* `settled()`  what commands came to: replies and errors;
* `news()`     events and resets, in the order of the log;
* `lost`       not None: the connection is useless, drop it at once and report `closed`;
* `deadline()` when to call `tick` if nothing else happens;
* `outstanding` the commands that closing would leave without a reply;
* `reconnect_at` when to open the next connection; `failure` where there will be none.

What it keeps across connections is the folded log and the outbox. A connection itself is a phase of the table in
`phases`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from holdfast.client.backoff import backoff
from holdfast.client.errors import (
    ClientClosedError,
    ConflictError,
    ConnectionClosedError,
    TooLargeError,
    refusal,
)
from holdfast.client.outbox import Entry, HistoryPage, Outbox, Settled
from holdfast.client.phases import STATUS, TABLE, WELCOMED, Input, Phase, Status
from holdfast.client.view import News, View
from holdfast.protocol import (
    JSON,
    Ack,
    Codec,
    CommandError,
    Error,
    HoldfastError,
    Snapshot,
    Welcome,
    may_reconnect,
)
from holdfast.protocol.codec import COMMAND_ITEMS, COMMAND_VALUES
from holdfast.protocol.control import Limits, Presence
from holdfast.protocol.errors import Retry, retry_of
from holdfast.protocol.messages import join_continued
from holdfast.protocol.values import MESSAGE_BYTES

GREETING_SECONDS: Final = 10.0
"""How long the server has to reply to `hello`."""
STABLE_SECONDS: Final = 5.0
"""A connection that was live this long starts the backoff anew; a shorter one counts as another failure."""
MAX_REFUSALS: Final = 8
"""How often a command is tried again after errors that go away by waiting, before its caller is told."""


class _LostContactError(Exception):
    """The connection cannot be trusted any more."""


class Connection:
    """One client's session over any number of connections. See the module for how it is driven.

    `random` gives numbers in [0, 1) for the jitter. Bounds: the outbox's, `view.MESSAGES_KEPT` messages, and what
    the shell has not taken yet of one frame.
    """

    def __init__(
        self,
        codec: Codec,
        random: Callable[[], float],
        *,
        device: str,
        client: str,
        messages: int = 50,
        outbox: Outbox | None = None,
        view: View | None = None,
    ) -> None:
        self.view = View() if view is None else view
        self.outbox = Outbox() if outbox is None else outbox
        self.failure: HoldfastError | None = None
        """Why there will be no further connection."""
        self.lost: str | None = None
        """Why the present connection is to be dropped."""
        self.reconnect_at: float | None = None
        """When to open the next connection; None while there is one, and at the end."""
        self.welcome: Welcome | None = None
        """Of the latest connection that got that far."""
        self.presence: Presence = {"type": "presence", "devices": [], "total": 0}
        """As last told; empty while not connected."""
        self.refused: str | None = None
        """The server's words in the last error that is no command's reply: why it closes."""
        self._codec = codec
        self._random = random
        self._hello: dict[str, Any] = {"type": "hello", "device": device, "client": client, "messages": messages}
        self._pong = codec.encode({"type": "pong"})
        self._phase = Phase.OFFLINE
        self._attempt = 0
        self._heard_at = 0.0
        self._live_since: float | None = None
        self._hint_ms: int | None = None
        self._not_before = 0.0
        """No connection is opened earlier, however eager anybody is: the server asked for it."""
        self._leaving = False
        self._fresh = False
        """The next hello asks for a snapshot: what is folded may be damaged."""
        self._limits: Limits = {
            "frameBytes": MESSAGE_BYTES,
            "eventBytes": MESSAGE_BYTES,
            "messageBytes": MESSAGE_BYTES,
            "commandItems": COMMAND_ITEMS,
            "commandValues": COMMAND_VALUES,
        }
        self._frames: list[bytes] = []
        self._settled: list[Settled] = []
        self._news: list[News] = []
        self._receivers: Mapping[str, Callable[[Any, float], None]] = {
            "welcome": self._on_welcome,
            "snapshot": self._on_snapshot,
            "caughtUp": self._on_caught_up,
            "page": self._on_page,
            "ack": self._on_ack,
            "error": self._on_error,
            "ping": self._on_ping,
            "goaway": self._on_goaway,
            "presence": self._on_presence,
        }

    @property
    def status(self) -> Status:
        """Where the client stands with its server."""
        return STATUS[self._phase]

    @property
    def limits(self) -> Limits:
        """The server's bounds, as of the last welcome."""
        return self._limits

    @property
    def outstanding(self) -> list[Mapping[str, Any]]:
        """The commands that wait for their reply, oldest first. Questions, which change nothing, are none."""
        return self.outbox.commands()

    # ---- what happens

    def opening(self) -> None:
        """A connection is being opened."""
        assert self._phase is Phase.OFFLINE, "one connection at a time"
        self._phase = Phase.OPENING
        self.reconnect_at = None

    def opened(self, now: float, token: str | None) -> None:
        """The socket is open: `hello` is among the next frames."""
        assert self._phase is Phase.OPENING, "opening comes first"
        self._phase = Phase.GREETING
        self._heard_at = now
        hello = dict(self._hello)
        if token is not None:
            hello["token"] = token
        cursor = None if self._fresh else self.view.cursor()
        if cursor is not None:
            hello["cursor"] = cursor
        self._frames.append(self._codec.encode(hello))

    def received(self, value: JSON, now: float) -> None:
        """A decoded frame: one message or an array of them. After lost contact the rest of it is not looked at."""
        self._heard_at = now
        for message in value if isinstance(value, list) else [value]:
            try:
                if not isinstance(message, dict):
                    raise _LostContactError("a message is an object")
                self._receive(message, now)
            except _LostContactError as error:
                self.lost = str(error)
                return
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                # The fold may have stopped half way through such a message, so nothing folded is built upon.
                self._fresh = True
                self.lost = f"a message that is none: {error!r}"
                return

    def undecodable(self, reason: str) -> None:
        """A frame that is no message came: the connection is lost, what is folded is not damaged."""
        self.lost = reason

    def closed(self, now: float, code: int, reason: str = "", *, transient: HoldfastError | None = None) -> None:
        """The connection is gone, with a close code; or it could not be opened, with `transient` for the reason.

        After a connection that this side dropped (`lost`) the code does not count: it always comes back.
        """
        if self._phase is Phase.CLOSED:
            return
        come_back = self.lost is not None or transient is not None or may_reconnect(code)
        if not come_back:
            self.fail(ConnectionClosedError(code, self.refused or reason))
            return
        if self._live_since is not None and now - self._live_since >= STABLE_SECONDS:
            self._attempt = 0
        self._not_before = now + (self._hint_ms or 0) / 1000
        self.reconnect_at = now + backoff(self._attempt, self._random, hint_ms=self._hint_ms)
        self._attempt += 1
        self._disconnected(Phase.OFFLINE)

    def fail(self, error: HoldfastError) -> None:
        """There will be no further connection: every command that waits gets `error`."""
        if self._phase is Phase.CLOSED:
            return
        self._disconnected(Phase.CLOSED)
        self.failure = error
        self.reconnect_at = None
        self._settled.extend(Settled(command_id, None, error) for command_id in self.outbox.clear())

    def leave(self, now: float) -> None:
        """The program is about to close: it gives no further command.

        The next connection is due now, or as soon as the server's wish allows, where a command waits for it.
        """
        self._leaving = True
        if self.reconnect_at is not None and self.outstanding:
            self.reconnect_at = min(self.reconnect_at, max(now, self._not_before))

    def close(self) -> None:
        """The program is done with this client. Says nothing to the server about any run."""
        self.fail(ClientClosedError())

    def submit(self, message: Mapping[str, Any], now: float) -> None:
        """Takes a command in, connected or not; its reply will be among `settled`, once.

        The same command again while it waits is taken once. Raises what ended the client, OutboxFullError,
        ConflictError where another command of the same id waits, and TooLargeError for one over the server's
        limit: such a command was not taken.
        """
        if self.failure is not None:
            raise self.failure
        if self._leaving:
            raise ClientClosedError
        frame = self._codec.encode(message)
        if len(frame) > self._limits["frameBytes"]:
            raise self._too_large(frame)
        waiting = self.outbox.get(message["id"])
        if waiting is not None:
            if waiting.frame != frame:
                raise ConflictError("conflict", "another command of this id waits for its reply", path="$.id")
            return
        self.outbox.add(message, frame)
        self._flush(now)

    def tick(self, now: float) -> None:
        """Time has passed: silence becomes lost contact, commands that were held back are sent."""
        limit = self._silence_limit()
        if limit is not None and now >= limit:
            self.lost = "nothing was heard for two heartbeats" if self._phase in WELCOMED else "no welcome came"
            return
        self._flush(now)

    # ---- what comes of it

    def frames(self) -> list[bytes]:
        """What to write, in order; the caller has it now."""
        frames, self._frames = self._frames, []
        return frames

    def settled(self) -> list[Settled]:
        """What commands came to, in the order it came."""
        settled, self._settled = self._settled, []
        return settled

    def news(self) -> list[News]:
        """Events and resets, in the order of the log."""
        news, self._news = self._news, []
        return news

    def deadline(self) -> float | None:
        """When `tick` is due; None for never."""
        times = [self._silence_limit(), self.outbox.next_due() if self._phase in WELCOMED else None]
        return min((time for time in times if time is not None), default=None)

    # ---- messages

    def _receive(self, message: Mapping[str, Any], now: float) -> None:
        receiver = self._receivers.get(message["type"])
        if receiver is not None:
            receiver(message, now)
        elif isinstance(message.get("seq"), int) and isinstance(message.get("at"), int):
            self._on_event(message)
        # Anything else is a control message of a later version.

    def _step(self, what: Input) -> None:
        after = TABLE[self._phase].get(what) if self._phase in TABLE else None
        if after is None:
            raise _LostContactError(f"{what.name} does not belong into {self._phase.name}")
        self._phase = after

    def _on_welcome(self, message: Welcome, now: float) -> None:
        tail = message["resume"] == "tail"
        if tail and (self._fresh or message["epoch"] != self.view.position["epoch"]):
            self._fresh = True
            raise _LostContactError("a tail of another log")
        self._step(Input.TAIL if tail else Input.RESET)
        self.welcome = message
        self._limits = message["limits"]
        self.refused = None
        self._flush(now)

    def _on_snapshot(self, message: Snapshot, now: float) -> None:
        self._step(Input.SNAPSHOT_LAST if message["last"] else Input.SNAPSHOT_PART)
        if self.view.transcript.partial_snapshot not in (None, (message["epoch"], message["seq"])):
            raise _LostContactError("another snapshot inside a snapshot")
        reset = self.view.load(message)
        if reset is not None:
            self._fresh = False
            self._news.append(reset)

    def _on_caught_up(self, message: Mapping[str, Any], now: float) -> None:
        self._step(Input.CAUGHT_UP)
        self._compare(message["seq"])
        self._live_since = now

    def _on_event(self, event: Mapping[str, Any]) -> None:
        have = self.view.transcript.seq
        first: int = event.get("from", event["seq"])
        if event["seq"] <= have and self._phase in (Phase.TAIL, Phase.LIVE):
            return  # had before, and what is had is never folded twice
        self._step(Input.EVENT)
        if first != have + 1:
            raise _LostContactError(f"event {first} after {have}")
        self.view.apply(event)
        self._news.append(cast("News", event))

    def _on_ack(self, message: Ack, now: float) -> None:
        self._step(Input.OTHER)
        if self.outbox.settle(message["id"]) is not None:
            self._settled.append(Settled(message["id"], message, None))
        # Only a new command's events must be here by now: a repeated one may speak of a log that is gone.
        if "duplicate" not in message and "seq" in message:
            self._compare(message["seq"])

    def _on_page(self, message: Mapping[str, Any], now: float) -> None:
        self._step(Input.OTHER)
        entry = self.outbox.get(message["id"])
        if entry is None:
            return
        entry.page = join_continued(entry.page, message["messages"])
        if message["last"]:
            self.outbox.settle(message["id"])
            self._settled.append(Settled(message["id"], HistoryPage(entry.page, message["more"]), None))

    def _on_error(self, message: Error, now: float) -> None:
        self._step(Input.REFUSAL)
        if "id" not in message:
            self.refused = message["message"]
            return
        entry = self.outbox.get(message["id"])
        if entry is None:
            return
        if retry_of(message["code"]) is Retry.ITSELF and entry.refusals < MAX_REFUSALS:
            delay = backoff(entry.refusals, self._random, hint_ms=message.get("retryAfterMs"))
            entry.refusals += 1
            entry.sent = False
            entry.held_until = now + delay
            return
        self.outbox.settle(message["id"])
        self._settled.append(Settled(message["id"], None, refusal(message)))

    def _on_ping(self, message: Mapping[str, Any], now: float) -> None:
        self._step(Input.OTHER)
        if self._phase in (Phase.TAIL, Phase.LIVE):
            self._compare(message["head"])
        if self._pong not in self._frames:
            self._frames.append(self._pong)  # one is enough for any number of pings that were read in one go

    def _on_goaway(self, message: Mapping[str, Any], now: float) -> None:
        self._step(Input.GOAWAY)
        self._hint_ms = int(message["reconnectAfterMs"])

    def _on_presence(self, message: Presence, now: float) -> None:
        self._step(Input.OTHER)
        self.presence = message

    # ---- the connection's own business

    def _compare(self, seq: int) -> None:
        """What the server has sent up to must be here."""
        if self._phase in (Phase.TAIL, Phase.LIVE) and seq > self.view.transcript.seq:
            raise _LostContactError(f"events up to {seq} are missing")

    def _flush(self, now: float) -> None:
        if self._phase not in WELCOMED:
            return
        for entry in self.outbox.due(now):
            if len(entry.frame) > self._limits["frameBytes"]:  # another server, with a smaller limit
                self._settled.append(Settled(entry.message["id"], None, self._too_large(entry.frame)))
                self.outbox.settle(entry.message["id"])
                continue
            self._send(entry)

    def _send(self, entry: Entry) -> None:
        entry.sent = True
        self._frames.append(entry.frame)

    def _too_large(self, frame: bytes) -> CommandError:
        limit = self._limits["frameBytes"]
        return TooLargeError("too_large", f"the command has {len(frame)} bytes, the server takes at most {limit}")

    def _silence_limit(self) -> float | None:
        if self._phase is Phase.GREETING:
            return self._heard_at + GREETING_SECONDS
        if self._phase in WELCOMED and self.welcome is not None:
            return self._heard_at + 2 * self.welcome["heartbeatMs"] / 1000
        return None

    def _disconnected(self, phase: Phase) -> None:
        self._phase = phase
        self._live_since = None
        self._hint_ms = None
        self.lost = None
        self._frames = []
        self.presence = {"type": "presence", "devices": [], "total": 0}
        self.view.transcript.discard_partial_snapshot()
        self.outbox.disconnected()
