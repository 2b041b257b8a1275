"""`connect`: from an address to a session that is live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Final, get_args
from urllib.parse import quote, urlsplit, urlunsplit

from holdfast.client.client import Client, Encoding
from holdfast.client.commands import new_id
from holdfast.client.errors import ConnectionFailedError
from holdfast.client.link import Token
from holdfast.client.session import Session
from holdfast.protocol.values import is_id

OPEN_TIMEOUT_SECONDS: Final = 10.0
MAX_MESSAGES: Final = 200
"""How many messages of the past a server tells at once."""
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
ID_RULE: Final = "1-128 of A-Z a-z 0-9 . _ : ~ - beginning with a letter or a digit"


def connect(
    url: str,
    *,
    session: str,
    token: Token = None,
    device: str | None = None,
    encoding: Encoding = "msgpack",
    messages: int = 50,
    open_timeout: float | None = OPEN_TIMEOUT_SECONDS,
) -> Opening:
    """Opens a session, in an `async with` block or awaited (then `close` it).

    `url`: the server's (`ws://`, `wss://`, `http://`, `https://`); the session's path is added.
    `session`: the id of the session; it begins to exist with its first message.
    `token`: says who this is. It may be a function, also a coroutine function, that is called at every connect.
    `device`: names this client to the others; a random one by default.
    `encoding`: how frames are written, `msgpack` or `json`; it makes no difference to what is said.
    `messages`: how many messages of the past are loaded at first, 0 to 200.
    `open_timeout`: seconds, see below.

    Opening waits until the session has caught up, trying again after failures that pass, and raises
    ConnectionFailedError after `open_timeout` seconds, or ConnectionClosedError where the server refuses for good.
    With `open_timeout=None` it returns at once; commands wait in the outbox until there is a connection.

    Raises ValueError for a url, ids, an encoding or a number of messages that cannot be.
    """
    if device is not None and not is_id(device):
        raise ValueError(f"{device!r} is no device id: {ID_RULE}")
    if encoding not in get_args(Encoding):
        raise ValueError(f"{encoding!r} is no encoding: there are {', '.join(get_args(Encoding))}")
    if not 0 <= messages <= MAX_MESSAGES:
        raise ValueError(f"{messages} messages cannot be loaded: 0 to {MAX_MESSAGES} can")
    return Opening(
        lambda: Session(Client(_endpoint(url, session), token, device or new_id("py", 4), encoding, messages), session),
        check=lambda: _endpoint(url, session),
        timeout=open_timeout,
    )


class Opening:
    """A session that is being opened: an async context manager, or to be awaited."""

    def __init__(self, make: Callable[[], Session], *, check: Callable[[], str], timeout: float | None) -> None:
        check()
        self._make = make
        self._timeout = timeout
        self._session: Session | None = None

    def __await__(self) -> Generator[Any, None, Session]:
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._open()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None, "entered before"
        await self._session.close()

    async def _open(self) -> Session:
        session = self._make()
        if self._timeout is None:
            return session
        try:
            async with asyncio.timeout(self._timeout):
                await session.wait_live()
        except TimeoutError:
            trouble = session.trouble or ConnectionFailedError("The server did not answer in time.")
            await session.close()
            raise trouble from None
        except BaseException:
            await session.close()
            raise
        return session


def _endpoint(url: str, session: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ValueError(f"{url!r} is no server's address: give something like ws://127.0.0.1:8787")
    if not is_id(session):
        raise ValueError(f"{session!r} is no session id: {ID_RULE}")
    path = f"{parts.path.rstrip('/')}/v1/sessions/{quote(session, safe='')}"
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, "", ""))
