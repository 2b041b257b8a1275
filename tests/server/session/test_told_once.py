"""One of each: a call that adds to the log, an answer to a command, a timer of a name, a worker of a run."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from holdfast.protocol import CommandError
from holdfast.protocol.control import Ack
from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.clock import Timers
from holdfast.server.registry import Owner, RunPhase
from holdfast.server.session.mailbox import Mailbox
from holdfast.server.session.workers import Workers
from tests.support.cluster import cluster
from tests.support.doubles import FakeClock, settled


def _workers() -> Workers:
    nobody: Any = None
    return Workers(start=nobody)


async def test_a_task_that_a_call_has_left_behind_adds_nothing_to_the_next() -> None:
    """The agent is called again for a steer: what its first call has started, and not ended, is refused its text."""
    end, late, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def stays(run: Run) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await late.wait()
        await run.text("late")

    async def agent(run: Run) -> None:
        if not tasks:
            tasks.append(asyncio.create_task(stays(run)))
            await end.wait()
        else:
            await run.text("next")
            await over.wait()

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await settled()
        await device.send("steer", id="s1", text="on", boundary="step")
        end.set()
        await settled()
        assert h.text("r1") == "next"
        late.set()
        await settled()
        assert tasks[0].cancelled()
        over.set()
        await device.wire.event("run.ended", runId="r1")
        assert h.text("r1") == "next"


def test_the_end_of_an_earlier_attempt_leaves_the_later_one_its_place() -> None:
    """Its worker stops when the next one of the same run is at work here: that one stays."""
    workers = _workers()
    earlier, later = (SimpleNamespace(owner=Owner("r1", "n1", attempt)) for attempt in (1, 2))
    by_run: dict[str, Any] = {"r1": later}
    workers.by_run = by_run
    done: Any = earlier
    workers.done(done)
    assert workers.by_run == {"r1": later}
    done = later
    workers.done(done)
    assert workers.by_run == {}


def test_a_worker_that_missed_the_end_of_its_run_is_told_how_it_ended() -> None:
    """The run was cancelled, and waits to be settled: that is due from the worker, as if it had heard of it."""
    told: list[Any] = []
    run = SimpleNamespace(run_id="r1", node="n1", attempt=1, phase=RunPhase.STOPPING, reason="cancelled")
    workers = _workers()
    by_run: dict[str, Any] = {"r1": SimpleNamespace(owner=Owner("r1", "n1", 1), ended=told.append, over=False)}
    workers.by_run = by_run
    state: Any = SimpleNamespace(runs={"r1": run})
    for effect in workers.reconciled(state, "n1"):
        workers.carry_out(effect)
    assert told == [{"reason": "cancelled"}]


def test_a_command_gets_one_reply() -> None:
    """Its sender was told that the store does not answer: what becomes of it then is not told to it."""
    replies: list[Ack | CommandError] = []
    late, closed = (CommandError("unavailable", reason) for reason in ("late", "closed"))
    ask: Any = None
    mailbox = Mailbox()
    mailbox.command(ask, 1.0, replies.append)
    mailbox.take(held=False)
    mailbox.refuse_older(1.0, late)
    assert mailbox.oldest_waiting() is None
    mailbox.refuse_all(closed, closed)
    assert replies == [late]


def test_a_timer_takes_the_place_of_the_one_of_its_name() -> None:
    """What waited under the name is not called, and what waits under another is."""
    clock, called = FakeClock(), list[str]()
    timers = Timers(clock)
    timers.after("a", 1, lambda: called.append("first"))
    timers.after("b", 1, lambda: called.append("other"))
    timers.after("a", 2, lambda: called.append("second"))
    clock.advance(3_000)
    assert called == ["other", "second"]
    assert not timers
