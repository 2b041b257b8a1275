"""The session that `connect` opens: what is known of it, and its commands."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar
from weakref import WeakSet, WeakValueDictionary

from pydantic import JsonValue

from holdfast.client.connection import Connection, HistoryPage, Reply
from holdfast.client.errors import ConnectionFailedError, InvalidCommandError
from holdfast.client.feed import BUFFER, Feed
from holdfast.client.link import Link, Token
from holdfast.client.outcomes import (
    AnswerOutcome,
    CancelOutcome,
    SteerOutcome,
    WithdrawOutcome,
    answer_outcome,
    cancel_outcome,
    steer_outcome,
    withdraw_outcome,
)
from holdfast.client.phases import Status
from holdfast.client.run import Run
from holdfast.client.submitted import Submitted
from holdfast.client.view import News, View
from holdfast.protocol import (
    JSON_CODEC,
    MSGPACK_CODEC,
    Ack,
    Codec,
    CommandError,
    Event,
    Message,
    Part,
    Position,
    clean,
    parse_command,
)
from holdfast.protocol.commands import IfUnknown, WhenBusy
from holdfast.protocol.control import Presence
from holdfast.protocol.events import Boundary, IfEnded

Encoding = Literal["msgpack", "json"]

HISTORY_PAGE: Final = 200
_ResultT = TypeVar("_ResultT")
_CODECS: Final[Mapping[Encoding, Codec]] = {"json": JSON_CODEC, "msgpack": MSGPACK_CODEC}


class Session:
    """A session on a server, kept connected until `close`. Closing it never stops a run.

    Everything it shows (`messages`, `runs`, `status`, …) is what is known at the moment and follows the log.

    Calling `send`, `cancel`, `steer`, `withdraw` or `answer` gives the command; awaiting what the call returns waits
    until the server has acknowledged it, over any number of reconnects. So a command counts also where nobody
    awaits it, and cancelling the wait does not take it back. The call raises InvalidCommandError for what is no
    command, TooLargeError, OutboxFullError where too many wait already, and what ended the client: such a command was
    not taken. Awaiting it raises a CommandError subclass where the server refused, and what ended the client. A command
    without an answer when the client has closed may have arrived or not; giving it again with the same id is safe.
    """

    def __init__(
        self, endpoint: str, session: str, token: Token, device: str, encoding: Encoding, messages: int
    ) -> None:
        self.id = session
        self.device = device
        codec = _CODECS[encoding]
        self._feeds: WeakSet[Feed] = WeakSet()
        self._runs: WeakValueDictionary[str, Run] = WeakValueDictionary()
        self._connection = Connection(
            codec,
            random.random,
            device=device,
            client=f"holdfast-py/{version('holdfast')}",
            messages=messages,
        )
        self._link = Link(self._connection, codec, endpoint, token, self._deliver)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- what is known

    @property
    def status(self) -> Status:
        """`connecting`, `catching up`, `live`, `offline` (between two tries), `closed`."""
        return self._connection.status

    @property
    def position(self) -> Position:
        """Up to where this client has the log."""
        return self.view.position

    @property
    def messages(self) -> list[Message]:
        """The transcript, as far as it is held here: what was loaded at first, and all since (at most 1,000)."""
        return self.view.transcript.messages()

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that have not ended and the last ones that have, by id, oldest first."""
        return {run_id: self.run(run_id) for run_id in self.view.transcript.runs}

    @property
    def presence(self) -> Presence:
        """Who watches the session, as last told; nobody while there is no connection."""
        return self._connection.presence

    @property
    def principal(self) -> str | None:
        """Who the server takes this client for; None before the first contact."""
        return None if self._connection.welcome is None else self._connection.welcome["principal"]

    @property
    def trouble(self) -> ConnectionFailedError | None:
        """Why the latest try to open a connection failed; None once one was open."""
        return self._link.trouble

    @property
    def view(self) -> View:
        """The folded log itself."""
        return self._connection.view

    def run(self, run_id: str) -> Run:
        """A run by its id: any, also of another device, also ended. The same object while somebody holds it.

        It need not be known yet; iterating or waiting for one that nobody knows raises UnknownRunError.
        """
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = Run(self, run_id)
        return run

    def events(self, *, buffer: int = BUFFER) -> Feed:
        """Every event from now on, `Reset` for what a snapshot replaced, `Lagged` where the reader was too slow."""
        return self.feed(wants=lambda event: True, finished=_never, taken=lambda event: None, buffer=buffer)

    async def changed(self) -> None:
        """Returns after the next change of anything that this session shows."""
        await self._link.changed()
        self.check()

    def check(self) -> None:
        """Raises what ended the client, if something has."""
        if self._connection.failure is not None:
            raise self._connection.failure

    async def wait_live(self) -> None:
        """Waits until everything up to the server's head is known. Raises what ended the client."""
        self.check()
        while self.status is not Status.LIVE:
            await self.changed()

    # ---- commands

    def send(
        self,
        content: str | Sequence[Part],
        *,
        run_id: str | None = None,
        agent: str | None = None,
        when_busy: WhenBusy = "queue",
        seen: Position | None = None,
        when_abandoned_ms: int | None = None,
        deadline_ms: int | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        message_id: str | None = None,
    ) -> Submitted[Run]:
        """Sends a message; awaited, it is the run that answers it (the one it went into, for `when_busy="steer"`).

        `run_id` is the idempotency key: the same send again, at any later time, is the same run. It may be chosen
        here so that the run can be cancelled before the server has answered. `deadline_ms` counts from acceptance;
        `when_abandoned_ms` ends the run when nobody has watched for so long.
        """
        command_id = run_id or f"r-{secrets.token_hex(8)}"

        def answering(ack: Ack) -> Run:
            run = self.run(ack.get("runId", command_id))
            if ack["outcome"] == "ended" and "reason" in ack:
                run.ended_before(ack["reason"])
            return run

        command = {
            "type": "send",
            "id": command_id,
            **_content(content),
            "agent": agent,
            "whenBusy": when_busy,
            "seen": seen,
            "whenAbandoned": None if when_abandoned_ms is None else {"cancelAfterMs": when_abandoned_ms},
            "deadlineMs": deadline_ms,
            "metadata": None if metadata is None else dict(metadata),
            "messageId": message_id,
        }
        return self._give(command, answering)

    def cancel(
        self,
        run_id: str,
        *,
        seen: Position | None = None,
        if_unknown: IfUnknown | None = None,
    ) -> Submitted[CancelOutcome]:
        """Stops a run by its id. `seen`: what was on screen; the kept answer is cut there.

        `if_unknown="prevent"` ends a run before the server has heard of it; that is the default while this
        client's own send of the run waits for its acknowledgement.
        """
        prevent = if_unknown or ("prevent" if self._connection.outbox.starts_run(run_id) else "ignore")
        command = {
            "type": "cancel",
            "id": _command_id(),
            "runId": run_id,
            "seen": seen,
            "ifUnknown": prevent,
        }
        return self._give(command, cancel_outcome)

    def cancel_all(self, *, up_to: Position | None = None, seen: Position | None = None) -> Submitted[CancelOutcome]:
        """Stops every run that was queued or started at or before `up_to` (default: what this client has).

        `seen`: what was on screen; the kept answers are cut there.
        """
        command = {
            "type": "cancel",
            "id": _command_id(),
            "scope": "session",
            "upTo": up_to or self.position,
            "seen": seen,
        }
        return self._give(command, cancel_outcome)

    def steer(
        self,
        content: str | Sequence[Part],
        *,
        run_id: str | None = None,
        boundary: Boundary = "now",
        if_ended: IfEnded = "return",
        seen: Position | None = None,
        steer_id: str | None = None,
    ) -> Submitted[SteerOutcome]:
        """Says something to a run while it goes on; without `run_id` to the session's main run."""
        command = {
            "type": "steer",
            "id": steer_id or f"s-{secrets.token_hex(8)}",
            "runId": run_id,
            **_content(content),
            "boundary": boundary,
            "ifEnded": if_ended,
            "seen": seen,
        }
        return self._give(command, steer_outcome)

    def withdraw(self, steer_id: str) -> Submitted[WithdrawOutcome]:
        """Takes back a steer that was not applied yet."""
        return self._give({"type": "withdraw", "id": _command_id(), "steerId": steer_id}, withdraw_outcome)

    def answer(self, run_id: str, request_id: str, value: JsonValue) -> Submitted[AnswerOutcome]:
        """Answers a request of a run."""
        command = {
            "type": "answer",
            "id": _command_id(),
            "runId": run_id,
            "requestId": request_id,
            "value": value,
        }
        return self._give(command, answer_outcome)

    async def history(self, *, before: int | None = None, limit: int = 50) -> HistoryPage:
        """The last `limit` (1-200) messages before the seq `before`, or of all."""
        return await self._submit({"type": "history", "id": _command_id(), "before": before, "limit": limit}, _page)

    async def refresh_token(self, token: str) -> int | None:
        """Gives the server a newer token of the same principal; when it expires, in Unix milliseconds.

        A token that was given to `connect` as a string is replaced for later reconnects as well.
        """
        ack = await self._give({"type": "auth", "id": _command_id(), "token": token}, lambda ack: ack)
        if not callable(self._link.token):
            self._link.token = token
        return ack.get("expiresAt")

    async def close(self) -> None:
        """Closes the connection for good. Runs go on; whoever waits here gets ClientClosedError.

        Commands that were given and have no answer yet get two seconds for it (`link.LINGER_SECONDS`), also where the
        connection has to be made first; without such commands it does not wait. One that is left then raises
        ClientClosedError where it is awaited, and is named in the log. Cancelling this ends the wait for answers.
        """
        try:
            await asyncio.sleep(0)  # a task that was made just before gives its command first
        finally:
            await self._link.close()

    # ---- for runs

    def feed(
        self,
        *,
        wants: Callable[[Event], bool],
        finished: Callable[[], Awaitable[bool]],
        taken: Callable[[Event], None],
        buffer: int,
    ) -> Feed:
        """A stream of those events that are wanted, from now on."""
        feed = Feed(self._link, wants=wants, finished=finished, taken=taken, buffer=buffer)
        self._feeds.add(feed)
        return feed

    async def find_answer(self, run_id: str) -> Message | None:
        """The answer of a run that is older than what is held here, looked for in the whole history."""
        held = self.view.transcript.messages()
        more = self.view.transcript.more
        before = held[0]["seq"] if held else None
        while more:
            page = await self.history(before=before, limit=HISTORY_PAGE)
            for message in page.messages:
                if message.get("runId") == run_id and message["role"] == "assistant":
                    return message
            more = page.more and bool(page.messages)
            before = page.messages[0]["seq"] if page.messages else None
        return None

    def _deliver(self, news: News) -> None:
        for feed in self._feeds:
            feed.deliver(news)

    def _give(self, command: Mapping[str, Any], read: Callable[[Ack], _ResultT]) -> Submitted[_ResultT]:
        """Gives a command that is acknowledged."""
        return self._submit(command, lambda reply: read(_ack(reply)))

    def _submit(self, command: Mapping[str, Any], read: Callable[[Reply], _ResultT]) -> Submitted[_ResultT]:
        self.check()
        given = {name: value for name, value in command.items() if value is not None or name == "value"}
        try:
            # A frame that breaks these rules is refused as a whole, by no id, and would be sent again for ever.
            limits = self._connection.limits
            message = clean(given, max_items=limits["commandItems"], max_values=limits["commandValues"])
            assert isinstance(message, dict), "a cleaned object is one"
            parse_command(message)  # what the server would refuse is refused here, naming the same place
        except CommandError as error:
            raise InvalidCommandError(error.code, error.message, path=error.path) from None
        return Submitted(self._link.command(message), read)


async def _never() -> bool:
    return False


def _ack(reply: Reply) -> Ack:
    assert not isinstance(reply, HistoryPage), "only history is answered by a page"
    return reply


def _page(reply: Reply) -> HistoryPage:
    assert isinstance(reply, HistoryPage), "history is answered by a page"
    return reply


def _command_id() -> str:
    return f"k-{secrets.token_hex(8)}"


def _content(content: str | Sequence[Part]) -> dict[str, Any]:
    return {"text": content} if isinstance(content, str) else {"parts": list(content)}
