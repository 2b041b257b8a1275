"""Stop means stop: what a cancel does to the log, to the agent, and to everybody's answer."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdfast.protocol.commands import Cancel
from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.registry import Ask, Chunk
from tests.support.cluster import cluster
from tests.support.doubles import settled


async def test_a_cancel_is_acknowledged_after_the_terminal_and_no_chunk_follows() -> None:
    """The ack names the terminal's seq; what the agent says later is not in the log; the stop is settled."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("one ", "two ")
        await settled()
        ack = await device.send("cancel", id="k1", runId="r1")
        assert ack["outcome"] == "cancelled"
        assert h.of("r1", "run.ended")[0]["seq"] == ack["seq"]
        call.say("three")
        await settled()
        assert h.kinds("r1") == ["message", "run.started", "run.chunk", "run.ended", "run.settled"]
        assert h.text("r1") == "one two "
        settle = h.of("r1", "run.settled")[0]
        assert (settle["confirmed"], settle["stoppedAfterMs"]) == (True, 0)


async def test_any_number_of_cancels_is_one_terminal() -> None:
    """Two devices and a repeat in one batch: one ends the run, one hears that it has ended, one is a duplicate."""
    async with cluster() as h:
        one, two = await h.device("d1"), await h.device("d2")
        await one.send("send", id="r1", text="go")
        await h.puppet.call()
        asks = [one.ask("cancel", id="k1", runId="r1"), two.ask("cancel", id="k2", runId="r1")]
        asks.append(one.ask("cancel", id="k1", runId="r1"))
        first, second, third = await asyncio.gather(*asks)
        assert (first["outcome"], second["outcome"]) == ("cancelled", "already_ended")
        assert third == {**first, "duplicate": True}
        assert len(h.of("r1", "run.ended")) == 1


@pytest.mark.parametrize("scope", [False, True])
async def test_a_cancel_stops_the_agent_before_it_is_in_the_log(scope: bool) -> None:
    """While the store is slow the agent has stopped already; the ack waits for the log."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("one ")
        await settled()
        cursor = device.cursor()
        assert cursor is not None
        h.road.pause("append")
        up_to = {"epoch": cursor["epoch"], "seq": cursor["seq"]}
        what = {"scope": "session", "upTo": up_to} if scope else {"runId": "r1"}
        answer = device.ask("cancel", id="k1", **what)
        await settled()
        assert isinstance(call.stopped_by, (asyncio.CancelledError, GeneratorExit))
        assert not answer.done()
        h.road.resume()
        assert (await answer)["outcome"] == "cancelled"


async def test_a_cancel_while_the_run_is_being_prepared() -> None:
    """A run that is stopped before its agent was ever called ends, is settled, and the agent is never called."""
    async with cluster() as h:
        device = await h.device()
        send, cancel = device.ask("send", id="r1", text="go"), device.ask("cancel", id="k1", runId="r1")
        assert (await send)["outcome"] == "started"
        assert (await cancel)["outcome"] == "cancelled"
        await settled()
        assert h.kinds("r1") == ["message", "run.started", "run.ended", "run.settled"]
        assert h.puppet.calls == []
        assert h.of("r1", "run.settled")[0]["stoppedAfterMs"] == 0


async def test_a_cancel_before_the_agent_reads_its_conversation() -> None:
    """The same while the agent's prompt is still being read."""
    async with cluster() as h:
        device = await h.device()
        answers = [device.ask("send", id="r1", text="go")]
        await answers[0]
        answers.append(device.ask("cancel", id="k1", runId="r1"))
        assert (await answers[1])["outcome"] == "cancelled"
        await settled()
        assert h.kinds("r1")[-1] == "run.settled"


async def test_a_cancel_of_a_queued_run() -> None:
    """A queued run that is cancelled leaves no message and is not settled; the main run goes on."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.send("send", id="r2", text="then")
        assert (await device.send("cancel", id="k1", runId="r2"))["outcome"] == "cancelled"
        assert h.kinds("r2") == ["run.queued", "run.ended"]
        call = await h.puppet.call()
        call.say("one")
        call.end()
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"


async def test_a_prevented_run_never_starts() -> None:
    """A cancel that overtakes its send, which then gets `ended`."""
    async with cluster() as h:
        device = await h.device()
        ack = await device.send("cancel", id="k1", runId="r1", ifUnknown="prevent")
        assert ack["outcome"] == "cancelled"
        late = await device.send("send", id="r1", text="go")
        assert (late["outcome"], late["reason"]) == ("ended", "cancelled")
        await settled()
        assert h.kinds("r1") == ["run.ended"]


async def test_what_the_user_saw_is_what_is_kept() -> None:
    """A cancel with the position on screen cuts the answer there, for everyone."""
    async with cluster() as h:
        device, other = await h.device("d1"), await h.device("d2")
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("one ")
        await settled()
        seen = device.cursor()
        assert seen is not None
        call.say("two ")
        await settled()
        await device.send("cancel", id="k1", runId="r1", seen={"epoch": seen["epoch"], "seq": seen["seq"]})
        assert device.text("r1") == other.text("r1") == "one "


async def test_the_scope_cancels_what_is_older_than_its_position() -> None:
    """Queued runs first, in one step; what was sent after the press is not touched, and starts."""
    async with cluster() as h:
        device = await h.device()
        for run_id in ("r1", "r2"):
            await device.send("send", id=run_id, text="go")
        pressed = device.cursor()
        assert pressed is not None
        await device.send("send", id="r3", text="later")
        position = {"epoch": pressed["epoch"], "seq": pressed["seq"]}
        ack = await device.send("cancel", id="k1", scope="session", upTo=position)
        assert ack["runIds"] == ["r2", "r1"]
        await settled()
        assert h.kinds("r3") == ["run.queued", "message", "run.started"]
        again = await device.send("cancel", id="k2", scope="session", upTo=position)
        assert again["runIds"] == []


async def test_an_agent_that_ignores_its_cancellation() -> None:
    """After the grace the run is settled as not confirmed, the server says so, and later output is refused."""
    late: list[str] = []
    go_on = asyncio.Event()

    async def deaf(run: Run) -> None:
        await run.text("one ")
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        try:
            await run.text("late")
        except asyncio.CancelledError:
            late.append("refused")

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", deaf)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk", runId="r1")
        await device.send("cancel", id="k1", runId="r1")
        await settled()
        assert h.kinds("r1")[-1] == "run.ended"
        with capture_logs() as logs:
            await h.clock.pass_ms(h.settings.grace_ms)
        settle = h.of("r1", "run.settled")[0]
        assert (settle["confirmed"], settle["stoppedAfterMs"]) == (False, h.settings.grace_ms)
        assert [entry["event"] for entry in logs] == ["agent ignores cancellation"]
        assert not device.session.workers
        go_on.set()
        await settled()
        assert late == ["refused"]
        assert h.text("r1") == "one "


async def test_an_agent_that_ignores_the_end_of_its_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to settle, but after the grace nobody waits for it any more: its session may be closed."""
    go_on = asyncio.Event()

    from holdfast.server.session import core as module

    decide = module.decide  # type: ignore[attr-defined]  # what the module imports is replaced where it is used

    def broken(state: Any, work: Any, context: Any) -> Any:
        if isinstance(work, Chunk):
            raise RuntimeError("a mistake in this program")
        return decide(state, work, context)

    async def deaf(run: Run) -> None:
        await run.text("one ")
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    monkeypatch.setattr(module, "decide", broken)
    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", deaf)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.ended", runId="r1", reason="failed")
        assert device.session.workers
        with capture_logs() as logs:
            await h.clock.pass_ms(h.settings.grace_ms)
        assert [entry["event"] for entry in logs] == ["agent ignores cancellation"]
        assert not device.session.workers
        assert h.kinds("r1")[-1] == "run.ended"
        go_on.set()
        await settled()


async def test_a_generator_that_swallows_its_cancellation_is_closed() -> None:
    """What it yields afterwards is not taken: the generator is closed and the run settled."""
    closed: list[str] = []

    async def stubborn(run: Run):  # type: ignore[no-untyped-def]  # as users write it
        try:
            yield "one "
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield "but "
        finally:
            closed.append(run.run_id)

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", stubborn)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk", runId="r1")
        await device.send("cancel", id="k1", runId="r1")
        settle = await device.wire.event("run.settled", runId="r1")
        assert settle["confirmed"]
        assert closed == ["r1"]
        assert h.text("r1") == "one "


async def test_a_synchronous_tool_is_waited_for_and_blocks_nobody() -> None:
    """The run is settled only when the thread has returned; meanwhile another session goes on."""
    returns = threading.Event()
    told: dict[str, bool] = {}

    async def worker(run: Run) -> None:
        def tool() -> None:
            assert returns.wait(10)
            told[run.session_id] = run.cancelled

        await run.text("calling ")
        await run.to_thread(tool)

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", worker)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.wire.event("run.chunk", runId="r1")
        await device.send("cancel", id="k1", runId="r1")
        await settled()
        assert h.kinds("r1")[-1] == "run.ended"
        other = await h.device("d9", session="other")
        await other.send("send", id="r1", text="go")
        await other.wire.event("run.chunk", runId="r1")
        returns.set()
        settle = await device.wire.event("run.settled", runId="r1")
        assert settle["confirmed"]
        await other.wire.event("run.ended", runId="r1")
        assert told == {"s": True, "other": False}


def _empty() -> object:
    return next(iter([]))


def _cancelled() -> object:
    raise asyncio.CancelledError


@pytest.mark.parametrize("function", [_empty, sys.exit, _cancelled])
async def test_a_thread_raises_nothing_that_means_something_here(function: Callable[[], object]) -> None:
    """What would end a coroutine, a task or the server is a RuntimeError for the agent, with its cause."""
    caught: list[BaseException | None] = []

    async def worker(run: Run) -> None:
        with pytest.raises(RuntimeError) as raised:
            await run.to_thread(function)
        caught.append(raised.value.__cause__)
        with pytest.raises(ZeroDivisionError):
            await run.to_thread(divmod, 1, 0)
        assert await run.to_thread(divmod, 7, 2) == (3, 1)

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", worker)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
        assert isinstance(caught[0], (StopIteration, SystemExit, asyncio.CancelledError))


async def test_an_interrupt_ends_and_starts_in_one_append() -> None:
    """The old run's terminal and the new run's start stand side by side, and came with one append."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await h.puppet.call()
        appends = h.road.calls["append"]
        h.road.pause("append")
        answer = device.ask("send", id="r2", text="no, this", whenBusy="interrupt")
        await settled()
        assert h.kinds("r1") == ["message", "run.started"]
        h.road.resume()
        assert (await answer)["outcome"] == "started"
        kinds = [(event["type"], event["runId"]) for event in h.events()[2:5]]
        assert kinds == [("run.ended", "r1"), ("message", "r2"), ("run.started", "r2")]
        assert h.of("r1", "run.ended")[0]["cause"] == "superseded"
        assert appends + 1 <= h.road.calls["append"]


async def test_closing_everything_at_the_client_stops_nothing() -> None:
    """A dropped line is no cancel: the run goes on and completes with nobody there."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        device.leave()
        call.say("one")
        call.end()
        await settled()
        assert h.of("r1", "run.ended")[0]["reason"] == "completed"
        await device.resume()
        assert device.text("r1") == "one"


@pytest.mark.parametrize("half_way", [False, True])
async def test_a_cancel_that_cannot_be_decided_leaves_no_agent_halted(
    monkeypatch: pytest.MonkeyPatch, half_way: bool
) -> None:
    """The agent has stopped for it already: its run ends as failed, also where deciding had begun to end it."""
    from holdfast.server.session import core as module

    decide = module.decide  # type: ignore[attr-defined]  # what the module imports is replaced where it is used

    def broken(state: Any, work: Any, context: Any) -> Any:
        if isinstance(work, Ask) and isinstance(work.command, Cancel):
            if half_way:
                decide(state, work, context)
            raise RuntimeError("a mistake in this program")
        return decide(state, work, context)

    monkeypatch.setattr(module, "decide", broken)
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await h.puppet.call()
        refused = await device.send("cancel", id="k1", runId="r1")
        assert refused["code"] == "internal"
        ended = await device.wire.event("run.ended", runId="r1")
        assert (ended["reason"], ended["error"]["code"]) == ("failed", "stopped")
        await settled()
        assert not device.session.workers


async def test_a_stop_of_everything_stops_all_that_is_older_and_nothing_else() -> None:
    """Before it is in the log: both agents of the runs that were there when it was pressed; a later one goes on."""
    async with cluster() as h:
        device = await h.device()
        for number in (1, 2):
            await device.send("send", id=f"r{number}", text="go", whenBusy="alongside")
        calls = [await h.puppet.call(number) for number in (0, 1)]
        pressed = device.cursor()
        assert pressed is not None
        await device.send("send", id="r3", text="later", whenBusy="alongside")
        later = await h.puppet.call(2)
        h.road.pause("append")
        up_to = {"epoch": pressed["epoch"], "seq": pressed["seq"]}
        answer = device.ask("cancel", id="k1", scope="session", upTo=up_to)
        await settled()
        assert [call.ended.is_set() for call in calls] == [True, True]
        assert not later.ended.is_set()
        h.road.resume()
        assert sorted((await answer)["runIds"]) == ["r1", "r2"]
        later.say("still")
        later.end()
        assert (await device.wire.event("run.ended", runId="r3"))["reason"] == "completed"


async def test_a_stop_of_everything_at_a_position_of_another_log_stops_nobody() -> None:
    """It means nothing here: no run ends, and no agent was stopped for it."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        cursor = device.cursor()
        assert cursor is not None
        up_to = {"epoch": "another", "seq": cursor["seq"]}
        assert (await device.send("cancel", id="k1", scope="session", upTo=up_to))["runIds"] == []
        call.say("on")
        call.end()
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert device.text("r1") == "on"
