"""Clocks around functions of the server, named from outside: what each took, without what clocked ones in it took.

A clock costs time itself, a third of a µs: how much of that lies in the function's own time, and how much in its
caller's, is measured at the start and taken off.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import pkgutil
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import coroutine
from typing import Any, Final

from websockets.asyncio.connection import Connection

_TAKEN_AWAY_NS: Final = 500_000
"""Longer than anything that is clocked here takes: the machine gave the core to somebody else. It is left out."""
TRANSPORT: Final = "transport.write"
"""The name for what every WebSocket connection writes to: no function of the server, and not one of Python either."""
_CALLS: Final = 5_000
"""Made to see what a clock takes."""


@dataclass(slots=True)
class Layer:
    """What the functions of one name took."""

    ns: int = 0
    calls: int = 0
    clock_ns: float = 0.0
    """What clocks took of that: their own, and those of other functions that were called from within."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one clock takes, in ns."""

    own: float = 0.0
    """Of the time of the function that it is around."""
    callers: float = 0.0
    """Of the time of whoever calls that."""


class Clocks:
    """One for each layer, on the thread that made them. Functions that are called on others are not clocked."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.missing: list[str] = []
        """Names of functions that are not there."""
        self._thread = threading.get_ident()
        self._running: list[Layer] = []
        self._since = 0
        self._costs = (Cost(), Cost())
        self._costs = (self._calibrated(_nothing), self._calibrated(_nothing_awaited))

    def told(self) -> dict[str, tuple[float, int]]:
        """By layer: ns so far, without what the clocks took, and calls."""
        return {name: (layer.ns - layer.clock_ns, layer.calls) for name, layer in self.layers.items()}

    def wrap(self, layer: str, name: str) -> None:
        """Puts a clock of this layer around the function or method with this dotted name, or around `TRANSPORT`."""
        if name == TRANSPORT:
            self._wrap_transports(self.layers.setdefault(layer, Layer()))
            return
        owner_name, _, attribute = name.rpartition(".")
        try:
            owner = pkgutil.resolve_name(owner_name)
            function = getattr(owner, attribute)
        except (ImportError, AttributeError):
            self.missing.append(name)
            return
        if not inspect.isfunction(function):
            raise TypeError(f"{name} is no function")
        setattr(owner, attribute, self._clocked(function, self.layers.setdefault(layer, Layer())))

    def _wrap_transports(self, layer: Layer) -> None:
        made = Connection.connection_made

        def connection_made(self: Connection, transport: asyncio.BaseTransport) -> None:
            made(self, _Transport(transport, clocked))

        def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
            return self._clocked(function, layer)

        setattr(Connection, "connection_made", connection_made)  # noqa: B010  # mypy takes no method in place of one

    def _clocked(self, function: Callable[..., Any], layer: Layer) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):
            cost = self._costs[1]

            @functools.wraps(function)
            async def stepped(*arguments: Any, **named: Any) -> Any:
                return await self._steps(function(*arguments, **named), layer, cost)

            return stepped

        cost = self._costs[0]

        @functools.wraps(function)
        def clocked(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*arguments, **named)
            self._enter(layer, cost)
            try:
                return function(*arguments, **named)
            finally:
                self._leave()

        return clocked

    @coroutine
    def _steps(self, inner: Coroutine[Any, Any, Any], layer: Layer, cost: Cost) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            self._enter(layer, cost)
            try:
                waited_for = inner.send(value) if error is None else inner.throw(error)
            except StopIteration as end:
                return end.value
            finally:
                self._leave()
            value, error = None, None
            try:
                value = yield waited_for
            except BaseException as thrown:
                error = thrown

    def _enter(self, layer: Layer, cost: Cost) -> None:
        if self._running:
            self._running[-1].clock_ns += cost.callers
            self._count(time.perf_counter_ns())
        layer.calls += 1
        layer.clock_ns += cost.own
        self._running.append(layer)
        self._since = time.perf_counter_ns()

    def _leave(self) -> None:
        self._count(time.perf_counter_ns())
        self._running.pop()
        self._since = time.perf_counter_ns()

    def _count(self, now: int) -> None:
        took = now - self._since
        if took < _TAKEN_AWAY_NS:
            self._running[-1].ns += took

    def _calibrated(self, function: Callable[[], Any]) -> Cost:
        """Of a clock around a function of this kind: the least of some measurings."""
        own: list[float] = []
        callers: list[float] = []
        for _ in range(7):
            inner, outer = Layer(), Layer()
            began = time.perf_counter_ns()
            _call(function)
            bare = (time.perf_counter_ns() - began) / _CALLS
            self._clocked(_call, outer)(self._clocked(function, inner))
            own.append(inner.ns / _CALLS)
            callers.append(outer.ns / _CALLS - bare)
        return Cost(min(own), max(0.0, min(callers)))


class _Transport(asyncio.BaseTransport):
    """A connection's transport, with a `write` of its own."""

    def __init__(self, inner: Any, clocked: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self.write = clocked(inner.write)
        for name in dir(inner):
            if not name.startswith("_") and name != "write":
                setattr(self, name, getattr(inner, name))


def _call(function: Callable[[], Any]) -> None:
    for _ in range(_CALLS):
        called = function()
        if called is not None:
            with suppress(StopIteration):
                called.send(None)


def _nothing() -> None:
    """Takes no time."""


async def _nothing_awaited() -> None:
    """Takes no time."""


def clocks(names: Iterable[str]) -> Clocks:
    """From `layer=dotted.name`, as a command line has it."""
    made = Clocks()
    for name in names:
        made.wrap(*name.split("=", 1))
    return made
