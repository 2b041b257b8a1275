"""The session that `connect` opens: what is known of it, and its commands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

from pydantic import JsonValue

from holdfast.client import commands
from holdfast.client.client import Client
from holdfast.client.errors import ConnectionFailedError
from holdfast.client.feed import BUFFER, Feed
from holdfast.client.outbox import HistoryPage
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
from holdfast.client.run import Run, ended_before
from holdfast.client.submitted import Submitted
from holdfast.protocol import Ack, Message, Part, Position, Transcript
from holdfast.protocol.commands import IfUnknown, WhenBusy
from holdfast.protocol.control import Presence
from holdfast.protocol.events import Boundary, IfEnded


class Session:
    """A session on a server, kept connected until `close`. Closing it never stops a run.

    Everything it shows (`messages`, `runs`, `status`, …) is what is known at the moment and follows the log.

    Calling `send`, `cancel`, `steer`, `withdraw` or `answer` gives the command; awaiting what the call returns waits
    until the server has acknowledged it, over any number of reconnects. So a command counts also where nobody
    awaits it, and cancelling the wait does not take it back. The call raises InvalidCommandError for what is no
    command, TooLargeError, OutboxFullError where too many wait already, and what ended the client: such a command was
    not taken. Awaiting it raises a CommandError subclass where the server refused, and what ended the client. A command
    without a reply when the client has closed may have arrived or not; giving it again with the same id is safe.
    """

    def __init__(self, client: Client, session_id: str) -> None:
        self.id = session_id
        self._client = client
        self._runs: WeakValueDictionary[str, Run] = WeakValueDictionary()

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
        return self._client.status

    @property
    def position(self) -> Position:
        """Up to where this client has the log."""
        return self._client.position

    @property
    def messages(self) -> list[Message]:
        """The transcript, as far as it is held here: what was loaded at first, and all since (at most 1,000)."""
        return self.transcript.messages()

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that have not ended and the last ones that have, by id, oldest first."""
        return {run_id: self.run(run_id) for run_id in self.transcript.runs}

    @property
    def presence(self) -> Presence:
        """Who watches the session, as last told; nobody while there is no connection."""
        return self._client.connection.presence

    @property
    def principal(self) -> str | None:
        """Who the server takes this client for; None before the first contact."""
        welcome = self._client.connection.welcome
        return None if welcome is None else welcome["principal"]

    @property
    def trouble(self) -> ConnectionFailedError | None:
        """Why the latest try to open a connection failed; None once one was open."""
        return self._client.link.trouble

    @property
    def transcript(self) -> Transcript:
        """The folded log itself: all of `messages` and `runs` as the wire has them. To be read and not changed."""
        return self._client.view.transcript

    @property
    def device(self) -> str:
        """What this client is called among the session's devices."""
        return self._client.device

    def run(self, run_id: str) -> Run:
        """A run by its id: any, also of another device, also ended. The same object while somebody holds it.

        It need not be known yet; iterating or waiting for one that nobody knows raises UnknownRunError.
        """
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = Run(self._client, run_id)
        return run

    def events(self, *, buffer: int = BUFFER) -> Feed:
        """Every event from now on, `Reset` for what a snapshot replaced, `Lagged` where the reader was too slow.

        `buffer`: how many events may wait for the reader before the oldest are left out.
        """
        return self._client.feed(wants=lambda event: True, finished=_never, taken=lambda event: None, buffer=buffer)

    async def changed(self) -> None:
        """Returns after the next change of anything that this session shows."""
        await self._client.changed()

    async def wait_live(self) -> None:
        """Waits until everything up to the server's head is known. Raises what ended the client."""
        self._client.check()
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
        """Sends a message; awaited, it is the run that it started (the one it went into, for `when_busy="steer"`).

        `content`: a text, or parts as the wire has them (`{"kind": "text", "text": …}`, `{"kind": "file", "url": …}`).
        `run_id`: the idempotency key, a random one by default. The same send again, at any later time, is the same run;
        another content with the id of an earlier send is refused as `conflict`. Chosen here, the run can be cancelled
        before the server has replied.
        `agent`: the name of the agent; by default the server's first.
        `when_busy`: what happens while another run, the session's main run, goes on. `queue`: this one waits for its
        turn. `interrupt`: the main run is cancelled and this one starts; those that wait stay behind it. `alongside`:
        this one starts beside it, and never makes the session busy itself. `reject`: BusyError. `steer`: no run starts,
        the message is a steer of the main run, and `agent` and all from `when_abandoned_ms` on count for nothing.
        `seen`: for `interrupt`, what was on screen of the run that it stops; the kept message is cut there.
        `when_abandoned_ms`: the run is cancelled when nobody has watched the session for so long; never by default.
        `deadline_ms`: the run ends as `expired` so long after the server has taken it; never by default.
        `metadata`: a JSON object that is kept with the message, for the agent.
        `message_id`: the id of the user's message; made of `run_id` by default.
        """
        command = commands.send(
            content,
            run_id=run_id or commands.new_id("r"),
            agent=agent,
            when_busy=when_busy,
            seen=seen,
            when_abandoned_ms=when_abandoned_ms,
            deadline_ms=deadline_ms,
            metadata=metadata,
            message_id=message_id,
        )

        def started(ack: Ack) -> Run:
            run = self.run(ack.get("runId", command["id"]))
            if ack["outcome"] == "ended" and "reason" in ack:
                ended_before(run, ack["reason"])
            return run

        return self._client.command(command, started)

    def cancel(
        self,
        run_id: str,
        *,
        seen: Position | None = None,
        if_unknown: IfUnknown | None = None,
    ) -> Submitted[CancelOutcome]:
        """Stops a run; acknowledged, no further chunk of it will ever be in the log.

        `run_id`: any run of the session, whoever sent it, or a steer, which is then withdrawn.
        `seen`: what was on screen, the kept message is cut there; None cuts nothing.
        `if_unknown`: what happens where the server does not know the run. `ignore`: the outcome is `unknown_run`.
        `prevent`: a send of that id, which may still be on its way, is over before it starts. That is the default while
        this client's own send of the run waits for its acknowledgement.
        """
        return self._client.cancel(run_id, seen=seen, if_unknown=if_unknown)

    def cancel_all(self, *, up_to: Position | None = None, seen: Position | None = None) -> Submitted[CancelOutcome]:
        """Stops every run of the session that was queued or started at or before a position.

        `up_to`: that position; by default, up to where this client has the log.
        `seen`: what was on screen; the kept messages are cut there. None cuts nothing.
        """
        command = commands.cancel_all(up_to=up_to or self.position, seen=seen)
        return self._client.command(command, cancel_outcome)

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
        """Says something to a run while it goes on.

        `content`: a text, or parts, as in `send`.
        `run_id`: by default the session's main run.
        `boundary`: `now` interrupts the agent where it is; `step` waits for its next step.
        `if_ended`: what happens where the run has ended before it took the steer. `return`: it comes back, in
        `RunResult.returned`. `send`: it becomes a message of its own, with a run of its own.
        `seen`: for `now`, what was on screen; the message so far is cut there. None cuts nothing.
        `steer_id`: its idempotency key, by which `withdraw` takes it back; a random one by default.
        """
        command = commands.steer(
            content, run_id=run_id, boundary=boundary, if_ended=if_ended, seen=seen, steer_id=steer_id
        )
        return self._client.command(command, steer_outcome)

    def withdraw(self, steer_id: str) -> Submitted[WithdrawOutcome]:
        """Takes back a steer that its run has not taken yet. `steer_id`: as given, or as `SteerOutcome` has it."""
        return self._client.command(commands.withdraw(steer_id), withdraw_outcome)

    def answer(self, run_id: str, request_id: str, value: JsonValue) -> Submitted[AnswerOutcome]:
        """Answers a request of a run.

        `run_id`: the run that asks. `request_id`: the `id` of the request, from `Run.requests`.
        `value`: any JSON value, None too. An `approval` takes True or False, an `input` what its prompt or schema asks
        for, a `tool` what the tool gave back.
        """
        return self._client.command(commands.answer(run_id, request_id, value), answer_outcome)

    async def history(self, *, before: int | None = None, limit: int = 50) -> HistoryPage:
        """Older messages, ascending: the last `limit` (1 to 200) before the seq `before`, or of all.

        To page on, give the `seq` of the page's first message as `before` while `more` says that there are older ones.
        """
        return await self._client.history(before=before, limit=limit)

    async def refresh_token(self, token: str) -> int | None:
        """Gives the server a newer token of the same principal; when that expires, in Unix milliseconds.

        A `token` that was given to `connect` as a string is replaced for later connections as well. Raises
        UnauthorizedError or ForbiddenError for one that is not taken; the connection goes on with the old one.
        """
        ack = await self._client.command(commands.auth(token), lambda ack: ack)
        self._client.replace_token(token)
        return ack.get("expiresAt")

    async def close(self) -> None:
        """Closes the connection for good. Runs go on; whoever waits here gets ClientClosedError.

        Commands that were given and have no reply yet get two seconds for it (`link.LINGER_SECONDS`), also where the
        connection has to be made first; without such commands it does not wait. One that is left then raises
        ClientClosedError where it is awaited, and is named in the log. Cancelling this ends the wait for replies.
        """
        try:
            await asyncio.sleep(0)  # a task that was made just before gives its command first
        finally:
            await self._client.link.close()


async def _never() -> bool:
    return False
