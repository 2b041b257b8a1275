"""A run, as a client holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

from pydantic import JsonValue

from holdfast.client import commands
from holdfast.client.client import Client
from holdfast.client.errors import UnknownRunError
from holdfast.client.feed import BUFFER, Feed
from holdfast.client.outcomes import (
    AnswerOutcome,
    CancelOutcome,
    RunResult,
    SteerOutcome,
    answer_outcome,
    steer_outcome,
)
from holdfast.client.phases import Status
from holdfast.client.submitted import Submitted
from holdfast.client.view import RunState, TextCursor, reason_of, texts_of
from holdfast.protocol import Event, Message, Part, Position
from holdfast.protocol.events import Boundary, EndReason, IfEnded, Request

HISTORY_PAGE: Final = 200


class Run:
    """One run of the session, whoever started it, going on or ended. Letting go of it never stops it.

    Iterating it yields its text from the beginning and ends when the run ends. A reader that is slow gets longer
    pieces, never a queue; one that comes late gets what there is at once. If its message is cut (a cancel or a steer
    with `seen`), what was yielded beyond the cut is not taken back.
    """

    def __init__(self, client: Client, run_id: str) -> None:
        self.id = run_id
        self._client = client
        self._taken: Position | None = None
        self._archived: Message | None = None
        self._ended: EndReason | None = None
        """As an acknowledgement told, perhaps of longer ago than anything held here."""

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.status}>"

    @property
    def status(self) -> RunState:
        """`queued`, `running`, `waiting`, `ended`; `unknown` where what this client holds does not name it."""
        status = self._client.view.status(self.id)
        return "ended" if status == "unknown" and (self._ended or self._archived) else status

    @property
    def reason(self) -> EndReason | None:
        """Why it ended; None while it has not."""
        reason = self._client.view.reason(self.id) or self._ended
        return reason_of(self._archived) if reason is None and self._archived is not None else reason

    @property
    def requests(self) -> list[Request]:
        """What it waits for: approvals, inputs, tools of a client."""
        return self._client.view.requests(self.id)

    @property
    def message(self) -> Message | None:
        """What the assistant has said in it so far; None where it has not begun."""
        return self._client.view.message(self.id) or self._archived

    @property
    def text(self) -> str:
        """All text of its message so far."""
        return "".join(self._texts())

    @property
    def seen(self) -> Position | None:
        """Up to where this program's iterations have taken the run; None before the first."""
        return self._taken

    async def __aiter__(self) -> AsyncIterator[str]:
        """Its text, from the beginning to the end of the run.

        Raises UnknownRunError for a run that neither the log nor the history knows, and what ended the client.
        """
        cursor = TextCursor()
        while True:
            text = cursor.advance(self._texts())
            self._take(self._client.position)
            if text:
                yield text
            elif await self._is_over():
                rest = cursor.advance(self._texts())  # an old message is fetched only now
                if rest:
                    yield rest
                return
            else:
                await self._client.changed()

    def events(self, *, buffer: int = BUFFER) -> Feed:
        """Its events from now on, ending with its `run.ended`. See `Feed` for what a slow reader is told.

        `buffer`: how many events may wait for the reader before the oldest are left out.
        Of a run that has ended there are none; of one that nobody knows UnknownRunError is raised.
        """

        def mine(event: Event) -> bool:
            return event.get("runId") == self.id

        def take(event: Event) -> None:
            self._take({"epoch": self._client.position["epoch"], "seq": event["seq"]})

        return self._client.feed(wants=mine, finished=self._is_over, taken=take, buffer=buffer)

    async def wait(self) -> RunResult:
        """Waits for the run to end. Raises as iterating does; cancelling the wait leaves the run alone."""
        while not await self._is_over():
            await self._client.changed()
        ending = self._client.view.ending(self.id)
        reason = self.reason
        assert reason is not None, "an ended run has a reason"
        by, device = self._client.view.ender(self.id)
        if ending is None:
            return RunResult(self.id, reason, self.text, self.message)
        return RunResult(
            self.id,
            reason,
            self.text,
            self.message,
            cause=ending.get("cause"),
            by=by,
            device=device,
            error=ending.get("error"),
            usage=ending.get("usage"),
            returned=ending.get("returned", []),
        )

    def cancel(self, *, seen: Position | Literal["taken"] | None = "taken") -> Submitted[CancelOutcome]:
        """Stops the run. The call gives the command; awaited, it returns when no further chunk will ever be in the log.

        The kept message is cut at `seen`. By default that is what the iterations of this object have taken so far,
        and nothing is cut where it was never iterated; None cuts nothing. Works offline: it is sent when the
        connection is back. Nothing takes it back: neither cancelling the wait for it, nor leaving the session at once.
        """
        return self._client.cancel(self.id, seen=self._taken if seen == "taken" else seen)

    def steer(
        self,
        content: str | Sequence[Part],
        *,
        boundary: Boundary = "now",
        if_ended: IfEnded = "return",
        seen: Position | None = None,
    ) -> Submitted[SteerOutcome]:
        """Says something to the run while it goes on; awaited, what that came to.

        `content`, `boundary`, `if_ended`, `seen`: as in `Session.steer`.
        """
        command = commands.steer(content, run_id=self.id, boundary=boundary, if_ended=if_ended, seen=seen)
        return self._client.command(command, steer_outcome)

    def answer(self, request_id: str, value: JsonValue) -> Submitted[AnswerOutcome]:
        """Answers one of its `requests`, by the request's `id`. `value`: as in `Session.answer`."""
        return self._client.command(commands.answer(self.id, request_id, value), answer_outcome)

    def _take(self, position: Position) -> None:
        """The program has the run up to `position`."""
        taken = self._taken
        if taken is None or taken["epoch"] != position["epoch"] or taken["seq"] < position["seq"]:
            self._taken = position

    def _texts(self) -> list[str]:
        if self._archived is not None and not self._client.view.has_message(self.id):
            return texts_of(self._archived["parts"])
        return self._client.view.texts(self.id)

    async def _is_over(self) -> bool:
        """Whether the run has ended; its message is then at hand, from the history if need be."""
        view = self._client.view
        if self._archived is not None:
            return True
        match self.status:
            case "ended":
                if not view.has_message(self.id) and self._ended is None and view.message_expected(self.id):
                    self._archived = await _archived_message(self._client, self.id)
                return True
            case "unknown" if self._client.status is Status.LIVE:
                self._archived = await _archived_message(self._client, self.id)
                if self._archived is None and self.status == "unknown":
                    raise UnknownRunError(self.id)
                return self._archived is not None
            case _:
                self._client.check()
                return False


def ended_before(run: Run, reason: EndReason) -> None:
    """An acknowledgement told that the run had ended."""
    run._ended = reason  # pyright: ignore[reportPrivateUsage]


async def _archived_message(client: Client, run_id: str) -> Message | None:
    """The message of a run that is older than what is held here, looked for in the whole history."""
    held = client.view.transcript.messages()
    more = client.view.transcript.more
    before = held[0]["seq"] if held else None
    while more:
        page = await client.history(before=before, limit=HISTORY_PAGE)
        for message in page.messages:
            if message.get("runId") == run_id and message["role"] == "assistant":
                return message
        more = page.more and bool(page.messages)
        before = page.messages[0]["seq"] if page.messages else None
    return None
