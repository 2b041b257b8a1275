"""The client without asyncio: the same names, for scripts.

    with connect("ws://127.0.0.1:8787", session="trip") as session:
        run = session.send("Plan three days in Lisbon")
        for text in run:
            print(text, end="")

Nothing is implemented here twice. An event loop in a background thread holds the async client; calls and iterations
are handed to it one by one, and Ctrl-C gives up the wait and nothing else: a run that is iterated goes on.
"""

# pyright: reportPrivateUsage=false
# The descriptor of a waiting method sees into the object that it is a method of.

from __future__ import annotations

import asyncio
import functools
import threading
from asyncio import run_coroutine_threadsafe as submit_to_loop
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from types import MethodType, TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from holdfast.client import feed as async_feed
from holdfast.client import run as async_run
from holdfast.client import session as async_session
from holdfast.client.client import Encoding
from holdfast.client.errors import ClientClosedError
from holdfast.client.feed import BUFFER, Lagged
from holdfast.client.link import Token
from holdfast.client.opening import OPEN_TIMEOUT_SECONDS
from holdfast.client.opening import connect as async_connect
from holdfast.client.phases import Status
from holdfast.client.view import Reset, RunState
from holdfast.protocol import Event, Message, Position
from holdfast.protocol.control import Presence
from holdfast.protocol.events import EndReason, Request

__all__ = ["Feed", "Run", "Session", "connect"]

_P = ParamSpec("_P")
_TargetT = TypeVar("_TargetT")
_ResultT = TypeVar("_ResultT")
_ShownT = TypeVar("_ShownT")
_ItemT = TypeVar("_ItemT")


class _Portal:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast client", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    def call(self, coroutine: Coroutine[Any, Any, _ResultT]) -> _ResultT:
        """Runs it in the loop and waits. Interrupting the wait cancels the coroutine.

        Raises ClientClosedError once the loop has stopped.
        """
        if not self.alive:
            coroutine.close()
            raise ClientClosedError
        future = submit_to_loop(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise
        except BaseException:
            future.cancel()
            raise

    def look(self, function: Callable[[], _ResultT]) -> _ResultT:
        """Calls a function where the state it reads stands still: in the loop's thread, or here once that is gone.

        It is called also where the wait for it is interrupted: a command that was given stays given.
        """
        if not self.alive:
            return function()

        async def call() -> _ResultT:
            return function()

        return submit_to_loop(call(), self._loop).result()

    def close(self) -> None:
        """Stops the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class _Bridge(Generic[_TargetT]):
    """A face without asyncio of an object that lives in the portal's loop."""

    def __init__(self, portal: _Portal, target: _TargetT) -> None:
        self._portal = portal
        self._target = target

    def _look(self, read: Callable[[_TargetT], _ResultT]) -> _ResultT:
        """What `read` sees of the target."""
        return self._portal.look(lambda: read(self._target))

    def __repr__(self) -> str:
        return self._look(repr)


class _Blocking(Generic[_TargetT, _P, _ShownT]):
    """A method of the target that is awaited as a method that waits; `show` makes its result fit for this side."""

    def __init__(
        self,
        method: Callable[Concatenate[_TargetT, _P], Coroutine[Any, Any, Any]],
        show: Callable[[_Portal, Any], _ShownT],
    ) -> None:
        self.__doc__ = method.__doc__
        self._method = method
        self._show = show

    @overload
    def __get__(self, bridge: None, owner: type) -> Self: ...
    @overload
    def __get__(self, bridge: _Bridge[_TargetT], owner: type) -> Callable[_P, _ShownT]: ...
    def __get__(self, bridge: _Bridge[_TargetT] | None, owner: type) -> Self | Callable[_P, _ShownT]:
        if bridge is None:
            return self

        @functools.wraps(MethodType(self._method, bridge._target))
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _ShownT:
            begun = bridge._portal.look(lambda: self._method(bridge._target, *args, **kwargs))
            result = bridge._portal.call(begun)
            return self._show(bridge._portal, result)

        return call


@overload
def _blocking(
    method: Callable[Concatenate[_TargetT, _P], Coroutine[Any, Any, _ResultT]],
) -> _Blocking[_TargetT, _P, _ResultT]: ...
@overload
def _blocking(
    method: Callable[Concatenate[_TargetT, _P], Coroutine[Any, Any, _ResultT]],
    show: Callable[[_Portal, _ResultT], _ShownT],
) -> _Blocking[_TargetT, _P, _ShownT]: ...
def _blocking(
    method: Callable[Concatenate[_TargetT, _P], Coroutine[Any, Any, Any]],
    show: Callable[[_Portal, Any], Any] = lambda portal, result: result,
) -> _Blocking[_TargetT, _P, Any]:
    """A method that is awaited, bridged."""
    return _Blocking(method, show)


def _iterate(portal: _Portal, items: AsyncIterator[_ItemT]) -> Iterator[_ItemT]:
    async def following() -> _ItemT:
        return await anext(items)

    while True:
        try:
            item = portal.call(following())
        except StopAsyncIteration:
            return
        yield item


class Feed(_Bridge[async_feed.Feed]):
    """Events from the moment it was made, for one reader; an iterator."""

    def __iter__(self) -> Iterator[Event | Reset | Lagged]:
        return _iterate(self._portal, self._target)


class Run(_Bridge[async_run.Run]):
    """One run of the session; iterating it yields its text. See `holdfast.client.Run`."""

    wait = _blocking(async_run.Run.wait)
    cancel = _blocking(async_run.Run.cancel)
    steer = _blocking(async_run.Run.steer)
    answer = _blocking(async_run.Run.answer)

    @property
    def id(self) -> str:
        """Its id."""
        return self._look(lambda run: run.id)

    @property
    def status(self) -> RunState:
        """`queued`, `running`, `waiting`, `ended` or `unknown`."""
        return self._look(lambda run: run.status)

    @property
    def reason(self) -> EndReason | None:
        """Why it ended; None while it has not."""
        return self._look(lambda run: run.reason)

    @property
    def requests(self) -> list[Request]:
        """What it waits for."""
        return self._look(lambda run: run.requests)

    @property
    def message(self) -> Message | None:
        """What the assistant has said in it so far."""
        return self._look(lambda run: run.message)

    @property
    def text(self) -> str:
        """All text of its message so far."""
        return self._look(lambda run: run.text)

    @property
    def seen(self) -> Position | None:
        """Up to where iterations have taken the run."""
        return self._look(lambda run: run.seen)

    def __iter__(self) -> Iterator[str]:
        return _iterate(self._portal, aiter(self._target))

    def events(self, *, buffer: int = BUFFER) -> Feed:
        """Its events from now on, ending with its `run.ended`."""
        return Feed(self._portal, self._look(lambda run: run.events(buffer=buffer)))


class Session(_Bridge[async_session.Session]):
    """A session on a server, kept connected until `close`. See `holdfast.client.Session`.

    After `close` it still shows what it knew; commands, and waiting for anything, raise ClientClosedError.
    """

    send = _blocking(async_session.Session.send, Run)
    cancel = _blocking(async_session.Session.cancel)
    cancel_all = _blocking(async_session.Session.cancel_all)
    steer = _blocking(async_session.Session.steer)
    withdraw = _blocking(async_session.Session.withdraw)
    answer = _blocking(async_session.Session.answer)
    history = _blocking(async_session.Session.history)
    refresh_token = _blocking(async_session.Session.refresh_token)
    wait_live = _blocking(async_session.Session.wait_live)

    @property
    def id(self) -> str:
        """The session's id."""
        return self._look(lambda session: session.id)

    @property
    def device(self) -> str:
        """What this client is called."""
        return self._look(lambda session: session.device)

    @property
    def status(self) -> Status:
        """Where it stands with its server."""
        return self._look(lambda session: session.status)

    @property
    def position(self) -> Position:
        """Up to where it has the log."""
        return self._look(lambda session: session.position)

    @property
    def messages(self) -> list[Message]:
        """The transcript, as far as it is held here."""
        return self._look(lambda session: session.messages)

    @property
    def presence(self) -> Presence:
        """Who watches the session."""
        return self._look(lambda session: session.presence)

    @property
    def principal(self) -> str | None:
        """Who the server takes this client for."""
        return self._look(lambda session: session.principal)

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that have not ended and the last ones that have, by id."""
        runs = self._look(lambda session: session.runs)
        return {run_id: Run(self._portal, run) for run_id, run in runs.items()}

    def run(self, run_id: str) -> Run:
        """A run by its id: any, also of another device, also ended."""
        return Run(self._portal, self._look(lambda session: session.run(run_id)))

    def events(self, *, buffer: int = BUFFER) -> Feed:
        """Every event from now on."""
        return Feed(self._portal, self._look(lambda session: session.events(buffer=buffer)))

    def close(self) -> None:
        """Closes the connection for good, as `holdfast.client.Session.close`; runs go on. Safe to call again."""
        if not self._portal.alive:
            return
        try:
            self._portal.call(self._target.close())
        finally:
            self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(
    url: str,
    *,
    session: str,
    token: Token = None,
    device: str | None = None,
    encoding: Encoding = "msgpack",
    messages: int = 50,
    open_timeout: float | None = OPEN_TIMEOUT_SECONDS,
) -> Session:
    """Opens a session; use it in a `with` block or `close` it. As `holdfast.client.connect` in everything else."""
    opening = async_connect(
        url,
        session=session,
        token=token,
        device=device,
        encoding=encoding,
        messages=messages,
        open_timeout=open_timeout,
    )

    async def opened() -> async_session.Session:
        return await opening

    portal = _Portal()
    try:
        return Session(portal, portal.call(opened()))
    except BaseException:
        portal.close()
        raise
