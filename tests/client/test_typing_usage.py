"""The public names as a program uses them: the type checkers read this file, and the functions must import."""

from __future__ import annotations

import asyncio
import inspect
from typing import assert_type

from holdfast.client import (
    AnswerOutcome,
    CancelOutcome,
    HistoryPage,
    Lagged,
    Reset,
    Run,
    RunResult,
    Session,
    SteerOutcome,
    Submitted,
    WithdrawOutcome,
    connect,
    sync,
)
from holdfast.protocol import Event, Message, Position


async def asynchronous() -> None:
    """The asyncio client."""
    async with connect("ws://127.0.0.1:8787", session="trip", token=lambda: "t") as session:
        assert_type(session, Session)
        run = await session.send("hi", when_busy="interrupt", seen=session.position, metadata={"a": [1]})
        assert_type(run, Run)
        assert_type(asyncio.create_task(run.cancel()), asyncio.Task[CancelOutcome])
        assert_type(session.cancel_all(), Submitted[CancelOutcome])
        async for text in run:
            assert_type(text, str)
        async for item in run.events():
            assert_type(item, Event | Reset | Lagged)
        assert_type(await run.cancel(seen=None), CancelOutcome)
        assert_type(await run.steer("shorter", boundary="step"), SteerOutcome)
        assert_type(await run.wait(), RunResult)
        assert_type(await session.withdraw("s"), WithdrawOutcome)
        assert_type(await session.answer(run.id, "q", True), AnswerOutcome)
        assert_type(await session.history(limit=10), HistoryPage)
        assert_type(session.messages, list[Message])
        assert_type(session.runs, dict[str, Run])


def synchronous() -> None:
    """The same without asyncio."""
    with sync.connect("ws://127.0.0.1:8787", session="trip") as session:
        assert_type(session, sync.Session)
        run = session.send("hi", agent="demo")
        assert_type(run, sync.Run)
        for text in run:
            assert_type(text, str)
        for item in run.events():
            assert_type(item, Event | Reset | Lagged)
        assert_type(run.cancel(seen="taken"), CancelOutcome)
        assert_type(run.wait(), RunResult)
        assert_type(session.history(before=3), HistoryPage)
        assert_type(session.position, Position)


def test_facade_has_every_command() -> None:
    """Whatever the async session and run can do, the facade can, by the same name."""
    for ours, theirs in ((sync.Session, Session), (sync.Run, Run)):
        for name, member in inspect.getmembers(theirs):
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert name in _ASYNC_ONLY or hasattr(ours, name), name


_ASYNC_ONLY = frozenset({"transcript", "changed", "trouble"})
"""Of the async session: what only a loop can use."""
