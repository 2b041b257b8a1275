"""The tasks of an agent: all that it starts is known, contained, and ended with its run.

asyncio lets SystemExit and KeyboardInterrupt out of any task, and with them the event loop and the process end. And it
keeps tasks for as long as they like, whoever started them. Here every task that is made inside of an agent's context is
driven through a coroutine that turns those two into an error of that task, and that can be left for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextvars import ContextVar, copy_context
from types import CoroutineType
from typing import Any, Final, TypeVar

import structlog
from typing_extensions import override

_T = TypeVar("_T")
_NAMES: Final = 10
"""Of tasks, in one line of the log."""
_log = structlog.get_logger("holdfast.run")
_inside: ContextVar[AgentTasks | None] = ContextVar("holdfast_agent_tasks", default=None)
"""Whose code is running: set in the context of an agent's tasks and callbacks, None in the server's own."""


class AgentTasks:
    """What one attempt of a run has started and what has not ended yet.

    `exited` is told of every SystemExit and KeyboardInterrupt that would have left a task, from within it.
    """

    def __init__(self, exited: Callable[[BaseException], None], **ids: Any) -> None:
        self._exited: Callable[[BaseException], None] | None = exited
        self._ids = ids
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left: set[asyncio.Task[Any]] = set()
        self._exiting: set[asyncio.Task[Any] | None] = set()
        self.closed = False
        """Whether nobody waits for any of them any more: none of them takes another step."""

    def __contains__(self, task: asyncio.Task[Any]) -> bool:
        return task in self._tasks

    def start(self, main: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
        """Starts a task whose context, and that of all it starts in turn, is this agent's."""
        context = copy_context()
        context.run(_inside.set, self)
        loop = asyncio.get_running_loop()
        factory = loop.get_task_factory()
        make = factory.make if isinstance(factory, _TaskFactory) else _plain
        return self.added(make(loop, _Contained(main, self), name=name, context=context))

    def added(self, task: asyncio.Task[_T]) -> asyncio.Task[_T]:
        """Takes note of a task until it ends. Where all is over already it does not begin."""
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            if self.closed:
                if isinstance(_inner(task), CoroutineType):  # and no generator of it that Python closes
                    _log.warning("agent goes on after its end", **self._ids, tasks=names([task]))
                task.cancel()
        return task

    def leave_behind(self) -> None:
        """The call has returned: what it did not wait for is cancelled, and named in the log.

        Generators that are being closed are what is left of its own clean-up: those may finish.
        """
        left = [task for task in self._tasks - self._left if isinstance(_inner(task), CoroutineType)]
        if left:
            self._left.update(left)
            _log.warning("agent left tasks behind", **self._ids, tasks=names(left))
            for task in left:
                task.cancel()

    def cancel(self) -> None:
        """Enters all of them as CancelledError, where they wait."""
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Returns when nothing of the agent is left. Cancelled, it changes nothing."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Ends what has not ended, however it takes that: closed where it waits, and never resumed again."""
        self.closed = True
        if self._tasks:
            _log.warning("agent was closed", **self._ids, tasks=names(self._tasks))
            self.cancel()

    def release(self) -> None:
        """Nothing is left, and `exited` is told nothing any more.

        Contexts that were copied within the agent outlive it, and would keep what they lead to: a whole conversation.
        """
        self._exited = None

    def failed_closing(self, error: BaseException) -> None:
        """What was raised by code that was closed."""
        _log.warning("agent raised as it was closed", **self._ids, exc_info=error)

    def exit(self, error: BaseException) -> RuntimeError:
        """What a task raises in the place of an error that would have ended the process."""
        if self._exited is not None:
            self._exited(error)
        self._exiting.add(asyncio.current_task())
        return RuntimeError(f"a task of an agent raised {type(error).__name__}")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task in self._exiting:
            self._exiting.discard(task)
            task.exception()  # it was told of, and is not lost where nobody asks for it
        elif task in self._left:  # there is nobody who could ask it
            self._left.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                _log.warning("a task that an agent left behind raised", **self._ids, exc_info=error)


class _Contained(Coroutine[Any, Any, _T]):
    """An agent's coroutine as its task drives it."""

    def __init__(self, inner: Coroutine[Any, Any, _T], tasks: AgentTasks) -> None:
        self.inner = inner
        self._tasks = tasks

    def __getattr__(self, name: str) -> Any:
        """What debuggers and libraries ask a coroutine for, such as `cr_frame`."""
        return getattr(self.inner, name)

    @override
    def __await__(self) -> Any:
        return self.inner.__await__()

    @override
    def send(self, value: Any) -> Any:
        try:
            return self.inner.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise self._tasks.exit(error) from error

    @override
    def throw(self, *error: Any) -> Any:
        if self._tasks.closed:
            self._leave()
        try:
            return self.inner.throw(*error)
        except (SystemExit, KeyboardInterrupt) as raised:
            raise self._tasks.exit(raised) from raised

    @override
    def close(self) -> None:
        self.inner.close()

    def _leave(self) -> None:
        """Ends the task. Its code has a last word, without an await."""
        try:
            self.inner.throw(_Closed())  # GeneratorExit would not reach into an async generator that waits
            self.inner.close()
        except (_Closed, StopIteration):
            """It has ended."""
        except BaseException as error:
            self._tasks.failed_closing(error)
        raise asyncio.CancelledError


class _Closed(BaseException):
    """Enters the code of an agent that is not resumed any more."""


class _Task(asyncio.Task[Any]):
    """A task that code of an agent can cancel only where that agent has started it."""

    @override
    def cancel(self, msg: Any | None = None) -> bool:
        agent = _inside.get()
        if agent is None or self in agent:
            return super().cancel(msg)
        return False


class _TaskFactory:
    """Makes the tasks of an event loop. The server's own are made as they would be without it."""

    def __init__(self, before: Any, *, guarded: bool) -> None:
        self.before = before
        self.users = 0
        self.make: Any = before or (_guarded if guarded else _plain)

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        agent = _inside.get()
        if agent is None:
            return self.make(loop, coro, **options)  # type: ignore[no-any-return]  # a task, by its contract
        context = options.get("context")
        if context is not None and context.get(_inside) is not agent:
            context.run(_inside.set, agent)
        return agent.added(self.make(loop, _Contained(coro, agent), **options))


def _plain(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **options)


def _guarded(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return _Task(coro, loop=loop, **options)


def contain(loop: asyncio.AbstractEventLoop, *, guarded: bool = False) -> Callable[[], None]:
    """From now on tasks that agents make on this loop are theirs; what is returned ends that.

    `guarded`: agents can cancel no task but their own; only for a loop on which there is nothing but the server. A
    factory that the loop has already goes on making the tasks.
    """
    found = loop.get_task_factory()
    factory = found if isinstance(found, _TaskFactory) else _TaskFactory(found, guarded=guarded)
    if factory is not found:
        loop.set_task_factory(factory)
    factory.users += 1

    def end() -> None:
        factory.users -= 1
        if not factory.users and loop.get_task_factory() is factory:
            loop.set_task_factory(factory.before)

    return end


def names(tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
    """What the log calls them: name and function, of the first few."""
    named = sorted(f"{task.get_name()} ({getattr(_inner(task), '__qualname__', '?')})" for task in tasks)
    return named if len(named) <= _NAMES else [*named[:_NAMES], f"and {len(named) - _NAMES} more"]


def _inner(task: asyncio.Task[Any]) -> Any:
    coro = task.get_coro()
    return coro.inner if isinstance(coro, _Contained) else coro
