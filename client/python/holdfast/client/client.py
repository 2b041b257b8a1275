"""A program's client of one session: a `Connection` that a `Link` keeps connected, its feeds, and its commands.

`Session` and `Run` are its faces: they hold it, and it knows neither.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, Literal, TypeAlias, TypeVar
from weakref import WeakSet

from holdfast.client import commands
from holdfast.client.connection import Connection
from holdfast.client.errors import InvalidCommandError
from holdfast.client.feed import Backlog, Feed
from holdfast.client.link import Link, Token
from holdfast.client.outbox import HistoryPage, Reply
from holdfast.client.outcomes import CancelOutcome, cancel_outcome
from holdfast.client.phases import Status
from holdfast.client.submitted import Submitted
from holdfast.client.view import News, View
from holdfast.protocol import (
    JSON_CODEC,
    MSGPACK_CODEC,
    Ack,
    Codec,
    CommandError,
    Event,
    Position,
    clean,
    parse_command,
)
from holdfast.protocol.commands import IfUnknown

Encoding: TypeAlias = Literal["msgpack", "json"]

_ResultT = TypeVar("_ResultT")
_CODECS: Final[Mapping[Encoding, Codec]] = {"json": JSON_CODEC, "msgpack": MSGPACK_CODEC}


class Client:
    """One session of one server, kept connected until `close`."""

    def __init__(self, endpoint: str, token: Token, device: str, encoding: Encoding, messages: int) -> None:
        self.device = device
        codec = _CODECS[encoding]
        self._backlogs: WeakSet[Backlog] = WeakSet()
        """Of the feeds that somebody holds."""
        self.connection = Connection(
            codec,
            random.random,
            device=device,
            client=f"holdfast-py/{version('holdfast')}",
            messages=messages,
        )
        self.link = Link(self.connection, codec, endpoint, token, self._deliver)

    # ---- what is known

    @property
    def view(self) -> View:
        """The folded log, and how its runs ended."""
        return self.connection.view

    @property
    def position(self) -> Position:
        """Up to where this client has the log."""
        return self.view.position

    @property
    def status(self) -> Status:
        """Where the client stands with its server."""
        return self.connection.status

    async def changed(self) -> None:
        """Returns after the next change of anything that is known. Raises what ended the client."""
        await self.link.changed()
        self.check()

    def check(self) -> None:
        """Raises what ended the client, if something has."""
        if self.connection.failure is not None:
            raise self.connection.failure

    def feed(
        self,
        *,
        wants: Callable[[Event], bool],
        finished: Callable[[], Awaitable[bool]],
        taken: Callable[[Event], None],
        buffer: int,
    ) -> Feed:
        """A stream of those events that are wanted, from now on."""
        backlog = Backlog(wants, buffer)
        self._backlogs.add(backlog)
        return Feed(self.link, backlog, finished=finished, taken=taken)

    def _deliver(self, news: News) -> None:
        for backlog in self._backlogs:
            backlog.deliver(news)

    def replace_token(self, token: str) -> None:
        """Later connections use this token, unless a function gives them theirs."""
        if not callable(self.link.token):
            self.link.token = token

    # ---- commands

    def command(self, command: Mapping[str, Any], read: Callable[[Ack], _ResultT]) -> Submitted[_ResultT]:
        """Gives a command that is acknowledged; `read` makes the result of the acknowledgement."""
        return self._submit(command, lambda reply: read(_ack(reply)))

    def history(self, *, before: int | None, limit: int) -> Submitted[HistoryPage]:
        """Asks for the last `limit` messages before the seq `before`, or of all."""
        return self._submit(commands.history(before=before, limit=limit), _page)

    def cancel(
        self, run_id: str, *, seen: Position | None, if_unknown: IfUnknown | None = None
    ) -> Submitted[CancelOutcome]:
        """Stops a run; by default also one that the server cannot know yet, because its send waits for its reply."""
        if if_unknown is None:
            if_unknown = "prevent" if self.connection.outbox.starts_run(run_id) else "ignore"
        return self.command(commands.cancel(run_id, seen=seen, if_unknown=if_unknown), cancel_outcome)

    def _submit(self, command: Mapping[str, Any], read: Callable[[Reply], _ResultT]) -> Submitted[_ResultT]:
        self.check()
        given = {name: value for name, value in command.items() if value is not None or name == "value"}
        try:
            # A frame that breaks these rules is refused as a whole, by no id, and would be sent again for ever.
            limits = self.connection.limits
            message = clean(given, max_items=limits["commandItems"], max_values=limits["commandValues"])
            assert isinstance(message, dict), "a cleaned object is one"
            parse_command(message)  # what the server would refuse is refused here, naming the same place
        except CommandError as error:
            raise InvalidCommandError(error.code, error.message, path=error.path) from None
        return Submitted(self.link.command(message), read)


def _ack(reply: Reply) -> Ack:
    assert not isinstance(reply, HistoryPage), "only history gets a page"
    return reply


def _page(reply: Reply) -> HistoryPage:
    assert isinstance(reply, HistoryPage), "history gets a page"
    return reply
