"""A command that was given: what the methods that give one return."""

from __future__ import annotations

from asyncio import Future, shield
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

from holdfast.client.outbox import Reply

_ResultT = TypeVar("_ResultT", covariant=True)


class Submitted(Coroutine[Any, Any, _ResultT]):
    """A command that was given. Awaiting it waits for its reply; left alone, it is carried out all the same.

    It can be awaited more than once, gathered, and made a task. Cancelling whoever awaits it ends the wait and does not
    take the command back.
    """

    def __init__(self, reply: Future[Reply], read: Callable[[Reply], _ResultT]) -> None:
        self._reply = reply
        self._read = read
        self._steps: Generator[Any, Any, _ResultT] | None = None

    def __await__(self) -> Generator[Any, Any, _ResultT]:
        return self._read((yield from shield(self._reply).__await__()))

    # A coroutine in all but name, because that is what `asyncio.create_task` takes.

    def send(self, value: Any, /) -> Any:
        """Goes on with the wait, as a task does."""
        return self._wait().send(value)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: object = None,
        trace: TracebackType | None = None,
        /,
    ) -> Any:
        """Ends the wait with an exception, as a task does that is cancelled."""
        error = kind if isinstance(kind, BaseException) else kind(*() if value is None else (value,))
        return self._wait().throw(error if trace is None else error.with_traceback(trace))

    def close(self) -> None:
        """Gives up the wait."""
        self._wait().close()

    def _wait(self) -> Generator[Any, Any, _ResultT]:
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps
