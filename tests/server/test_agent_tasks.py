"""An agent can neither end nor hold the process: what it raises is its run's, what it starts ends with it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from holdfast.server.agent_tasks import AgentTasks, contain
from holdfast.server.agents.agent import Agent, AgentFunction
from holdfast.server.agents.run import Run
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled

PATIENCE_SECONDS = 10
"""A test that waits longer than this has failed."""
_let_go: list[bool] = []
"""Not empty when agents need not be deaf any more: the loop of a test that has failed waits for all its tasks."""


@pytest.fixture(autouse=True)
def _hear_at_last() -> Iterator[None]:
    _let_go.clear()
    yield
    _let_go.append(True)


async def _started(h: Cluster, agent: AgentFunction, **traits: bool) -> Device:
    h.nodes[0].agents = {"puppet": Agent("puppet", agent, **traits)}
    device = await h.device()
    await device.send("send", id="r1", text="go")
    return device


async def _raise(error: BaseException) -> None:
    raise error


async def _in_a_child(error: BaseException) -> None:
    await asyncio.create_task(_raise(error), name="child")


async def _in_a_group(error: BaseException) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(3600))
        group.create_task(_raise(error))


async def _in_a_group_of_a_child(error: BaseException) -> None:
    await asyncio.gather(_in_a_group(error), asyncio.sleep(3600))


async def _beside(error: BaseException) -> None:
    beside = asyncio.create_task(_raise(error))
    await asyncio.Event().wait()
    await beside


async def _though_it_is_caught(error: BaseException) -> None:
    try:
        await asyncio.create_task(_raise(error))
    except RuntimeError:
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize(
    "where",
    [_raise, _in_a_child, _in_a_group, _in_a_group_of_a_child, _beside, _though_it_is_caught],
)
async def test_what_would_end_the_process_fails_the_run(
    where: Callable[[BaseException], Awaitable[None]], error: BaseException
) -> None:
    """Wherever in the agent it is raised: the client is told one sentence, the log has the rest, all else goes on.

    And what a task of it raised for that is not told a second time, as an error that nobody asked for.
    """
    unasked: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unasked.append(context))

    async def agent(run: Run) -> None:
        await run.text("so far ")
        await where(error)

    async with cluster() as h:
        with capture_logs() as logs:
            device = await _started(h, agent)
            ended = await device.wire.event("run.ended", runId="r1")
        assert (ended["reason"], ended["error"]["code"]) == ("failed", "agent_error")
        assert ended["error"]["message"] == "The agent failed. The server's log has the reason."
        raised = [entry for entry in logs if entry["event"] == "agent raised"]
        assert [(entry["session"], entry["run"], entry["exc_info"]) for entry in raised] == [("s", "r1", error)]
        assert device.text("r1") == "so far "
        await settled()
        assert not device.session.workers
        gc.collect()
        assert unasked == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_a_generator_that_would_end_the_process_fails_its_run(error: BaseException) -> None:
    """Between two pieces of its text, as in a coroutine."""

    async def agent(run: Run) -> AsyncIterator[str]:
        yield "so far "
        raise error

    async with cluster() as h:
        device = await _started(h, agent)
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "failed"
        assert device.text("r1") == "so far "


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_a_clean_up_that_would_end_the_process_ends_nothing(error: BaseException) -> None:
    """The run was stopped already and stays so; the log has what its agent raised in its `finally`."""

    async def agent(run: Run) -> AsyncIterator[str]:
        try:
            yield "one "
            await asyncio.Event().wait()
        finally:
            raise error

    async with cluster() as h:
        device = await _started(h, agent)
        await device.wire.event("run.chunk")
        with capture_logs() as logs:
            await device.send("cancel", id="k1", runId="r1")
            assert (await device.wire.event("run.settled"))["confirmed"] is True
        assert [entry["exc_info"] for entry in logs if entry["event"] == "agent raised"] == [error]


async def test_an_interrupted_call_that_would_end_the_process_fails_the_run() -> None:
    """A steer ends the call, whose clean-up exits: the agent is not called again as if nothing had been."""
    calls: list[int] = []

    async def agent(run: Run) -> AsyncIterator[str]:
        calls.append(1)
        try:
            yield "one "
            await asyncio.Event().wait()
        finally:
            raise SystemExit(3)

    async with cluster() as h:
        device = await _started(h, agent)
        await device.wire.event("run.chunk")
        await device.send("steer", id="s1", text="no")
        ended = await device.wire.event("run.ended")
        assert (ended["reason"], [item["steerId"] for item in ended["returned"]]) == ("failed", ["s1"])
        assert calls == [1]


async def test_what_an_agent_left_behind_is_named_and_ended() -> None:
    """Tasks that it did not wait for are cancelled when it returns, and those that they start in turn."""
    stopped: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("inner")

    async def outer() -> None:
        task = asyncio.create_task(inner(), name="inner one")
        try:
            await asyncio.shield(task)
        finally:
            stopped.append("outer")

    async def agent(run: Run) -> AsyncIterator[str]:
        asyncio.get_running_loop().create_task(outer(), name="outer one")
        await asyncio.sleep(0.001)
        yield "done"

    async with cluster() as h:
        with capture_logs() as logs:
            device = await _started(h, agent)
            assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
            await settled()
        assert sorted(stopped) == ["inner", "outer"]
        (entry,) = [entry for entry in logs if entry["event"] == "agent left tasks behind"]
        assert (entry["session"], entry["run"]) == ("s", "r1")
        assert [name.partition(" (")[0] for name in entry["tasks"]] == ["inner one", "outer one"]
        assert "outer" in entry["tasks"][1].partition(" (")[2]
        assert not device.session.workers


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("7")])
async def test_what_a_task_left_behind_raises_is_in_the_log(error: BaseException) -> None:
    """Its run has ended, and nobody could ask the task: the log has it, with the run's ids, and nothing else ends."""

    async def left() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    async def agent(run: Run) -> AsyncIterator[str]:
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        yield "done"
        del task

    async with cluster() as h:
        with capture_logs() as logs:
            device = await _started(h, agent)
            assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
            await settled()
        told = [entry for entry in logs if entry.get("exc_info") is error]
        assert [(entry["session"], entry["run"]) for entry in told] == [("s", "r1")]


async def test_a_run_has_stopped_when_the_last_of_its_tasks_has() -> None:
    """Also one that another began as it was cancelled, and did not wait for."""
    clean = asyncio.Event()

    async def agent(run: Run) -> None:
        kept: list[asyncio.Task[Any]] = []

        async def left() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                kept.append(asyncio.create_task(clean.wait()))

        kept.append(asyncio.create_task(left()))
        await asyncio.Event().wait()

    async with cluster() as h:
        device = await _started(h, agent)
        await settled()
        await device.send("cancel", id="k1", runId="r1")
        await settled()
        assert h.kinds("r1")[-1] == "run.ended"
        clean.set()
        assert (await device.wire.event("run.settled"))["confirmed"] is True


async def test_what_an_agent_left_behind_is_named_once() -> None:
    """It is still cleaning up when the next call of the same run ends: it is not cancelled a second time."""
    clean = asyncio.Event()
    kept: list[asyncio.Task[Any]] = []

    async def left() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await clean.wait()

    async def agent(run: Run) -> AsyncIterator[str]:
        if not kept:
            kept.append(asyncio.create_task(left()))
            yield "x"
            await asyncio.Event().wait()
        yield "y"

    async with cluster() as h:
        with capture_logs() as logs:
            device = await _started(h, agent)
            await device.wire.event("run.chunk")
            await device.send("steer", id="s1", text="on")
            assert (await device.wire.event("run.ended"))["reason"] == "completed"
            await settled()
            assert not kept[0].done()
            clean.set()
            await settled()
        assert [entry["event"] for entry in logs] == ["agent left tasks behind"]
        assert not device.session.workers


async def test_what_ended_a_run_is_told_once() -> None:
    """Nobody awaits the task that tried to exit: asyncio does not tell of it a second time, without ids."""
    told: list[dict[str, Any]] = []

    async def agent(run: Run) -> None:
        asyncio.get_running_loop().create_task(_raise(SystemExit(3)))
        await asyncio.Event().wait()

    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with cluster() as h:
        device = await _started(h, agent)
        assert (await device.wire.event("run.ended"))["reason"] == "failed"
    gc.collect()
    assert told == []


async def test_a_run_whose_own_task_an_agent_cancels_ends() -> None:
    """Where nothing keeps agents from it: it has failed, and does not go on for ever with nobody to work on it."""

    async def agent(run: Run) -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == "run r1":
                task.cancel()

    async with cluster() as h:
        with capture_logs() as logs:
            device = await _started(h, agent)
            ended = await device.wire.event("run.ended", runId="r1")
            await settled()
        assert (ended["reason"], ended["error"]["code"]) == ("failed", "internal")
        assert [entry["run"] for entry in logs if entry["event"] == "working on a run failed"] == ["r1"]
        assert not device.session.workers


async def test_a_task_begun_after_the_end_takes_no_step() -> None:
    """A callback of an agent that was closed for good still comes: what it starts is told of, and does not begin."""
    begun: list[str] = []
    contexts: list[contextvars.Context] = []

    async def late() -> None:
        begun.append("late")

    async def agent(run: Run) -> None:
        contexts.append(contextvars.copy_context())
        while not _let_go:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async with cluster() as h:
        device = await _started(h, agent)
        await settled()
        await device.send("cancel", id="k1", runId="r1")
        with capture_logs() as logs:
            await h.clock.pass_ms(2 * h.settings.grace_ms)
            contexts[0].run(asyncio.create_task, late())
            await settled()
        assert begun == []
        assert [entry["event"] for entry in logs] == [
            "agent ignores cancellation",
            "agent was closed",
            "agent goes on after its end",
        ]


async def _deaf() -> None:
    while not _let_go:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def _deaf_itself(run: Run) -> None:
    await run.text("x")
    await _deaf()


async def _deaf_child(run: Run) -> None:
    await run.text("x")
    await asyncio.create_task(_deaf())


async def _writes_on(run: Run) -> None:
    await run.text("x")
    while not _let_go:
        try:
            await (run.text("on") if run.cancelled else asyncio.Event().wait())
        except asyncio.CancelledError:
            continue


async def _asks_on(run: Run) -> None:
    await run.text("x")
    while not _let_go:
        try:
            await (run.steers() if run.cancelled else asyncio.Event().wait())
        except asyncio.CancelledError:
            continue


async def _deaf_thing_left(run: Run) -> AsyncIterator[str]:
    task = asyncio.create_task(_deaf())
    await asyncio.sleep(0)
    yield "x"
    if run.metadata:
        await asyncio.Event().wait()
    del task


@pytest.mark.parametrize("agent", [_deaf_itself, _deaf_child, _deaf_thing_left, _writes_on, _asks_on])
async def test_what_ignores_its_cancellation_is_given_up_and_counted(agent: AgentFunction) -> None:
    """After one grace nobody waits for it, after a second one it is ended all the same: no task is left."""
    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", agent)}
        device = await h.device()
        before = asyncio.all_tasks()
        await device.send("send", id="r1", text="go", metadata={"stay": True})
        await device.wire.event("run.chunk", runId="r1")
        await device.send("cancel", id="k1", runId="r1")
        await h.clock.pass_ms(h.settings.grace_ms - 1)
        assert (h.nodes[0].agents_given_up, list(device.session.workers)) == (0, ["r1"])
        await h.clock.pass_ms(1)
        assert (h.nodes[0].agents_given_up, list(device.session.workers)) == (1, [])
        assert h.of("r1", "run.settled")[0]["confirmed"] is False
        await h.clock.pass_ms(h.settings.grace_ms)
        assert h.nodes[0].agents_given_up == 1
        assert asyncio.all_tasks() <= before


async def test_a_deaf_task_left_behind_holds_up_no_answer() -> None:
    """The run completes at once; what it left is given up after its grace."""

    async def agent(run: Run) -> AsyncIterator[str]:
        task = asyncio.create_task(_deaf())
        await asyncio.sleep(0)
        yield "x"
        del task

    async with cluster() as h:
        device = await _started(h, agent)
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
        assert (await device.send("send", id="r2", text="go"))["outcome"] == "started"
        await h.clock.pass_ms(2 * h.settings.grace_ms)
        assert h.nodes[0].agents_given_up == 2


@pytest.mark.parametrize("agent", [_deaf_itself, _deaf_child, _deaf_thing_left])
async def test_what_ignores_its_cancellation_holds_up_no_stop(agent: AgentFunction) -> None:
    """The node stops in its time, the log says which agent it was, and no task is left."""
    async with cluster() as h:
        device = await _started(h, agent)
        await device.wire.event("run.chunk", runId="r1")
        await settled()
        with capture_logs() as logs:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await h.nodes[0].stop(0.1)
        assert [entry["run"] for entry in logs if entry["event"] == "agent ignores cancellation"] == ["r1"]
        assert h.nodes[0].agents_given_up == 1
        await settled()


async def test_an_agent_that_catches_everything_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no error that it lets pass: it is left where it waits, and takes no further step."""
    steps: list[type[BaseException]] = []
    unraisable: list[object] = []

    def hook(raised: sys.UnraisableHookArgs) -> None:
        unraisable.append(raised.exc_type)

    monkeypatch.setattr(sys, "unraisablehook", hook)

    async def agent(run: Run) -> None:
        while not _let_go:
            try:
                await asyncio.Event().wait()
            except BaseException as error:
                steps.append(type(error))

    async with cluster() as h:
        await h.device()
        before = asyncio.all_tasks()
        device = await _started(h, agent)
        await settled()
        await device.send("cancel", id="k1", runId="r1")
        with capture_logs() as logs:
            await h.clock.pass_ms(2 * h.settings.grace_ms)
        assert steps[:2] == [asyncio.CancelledError, asyncio.CancelledError]
        taken = len(steps)
        assert asyncio.all_tasks() <= before
        assert any(entry["event"] == "agent raised as it was closed" for entry in logs)
        await settled()
        assert len(steps) == taken
    assert set(unraisable) <= {RuntimeError}


async def test_a_generator_that_ignores_its_cancellation_is_closed() -> None:
    """What an async generator waits for lets nothing else in than an error: its `finally` is run all the same."""
    closed: list[str] = []

    async def agent(run: Run) -> AsyncIterator[str]:
        try:
            yield "x"
            await _deaf()
        finally:
            closed.append(run.run_id)

    async with cluster() as h:
        device = await _started(h, agent)
        await device.wire.event("run.chunk")
        await device.send("cancel", id="k1", runId="r1")
        with capture_logs() as logs:
            await h.clock.pass_ms(2 * h.settings.grace_ms)
        assert closed == ["r1"]
        assert [entry["event"] for entry in logs] == ["agent ignores cancellation", "agent was closed"]


async def test_an_agent_closed_against_its_will_has_a_last_word() -> None:
    """Its `finally` is run, up to its first await; what it raises there is in the log."""
    closed: list[str] = []

    async def agent(run: Run) -> None:
        try:
            await _deaf()
        finally:
            closed.append(run.run_id)
            raise SystemExit(4)

    async with cluster() as h:
        device = await _started(h, agent)
        await settled()
        await device.send("cancel", id="k1", runId="r1")
        with capture_logs() as logs:
            await h.clock.pass_ms(2 * h.settings.grace_ms)
        assert closed == ["r1"]
        assert any(isinstance(entry.get("exc_info"), SystemExit) for entry in logs)


async def test_the_clean_up_of_an_agent_may_use_tasks() -> None:
    """What it starts in its `finally`, with a time limit or in a group, is not cancelled: it is given its grace."""
    cleaned: list[str] = []

    async def clean() -> None:
        await asyncio.sleep(0.001)
        cleaned.append("up")

    async def agent(run: Run) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wait_for(clean(), 10)
            async with asyncio.TaskGroup() as group:
                group.create_task(clean())

    async with cluster() as h:
        device = await _started(h, agent)
        await settled()
        await device.send("cancel", id="k1", runId="r1")
        assert (await device.wire.event("run.settled"))["confirmed"] is True
        assert cleaned == ["up", "up"]


async def test_a_generator_that_the_agent_dropped_is_closed_in_peace() -> None:
    """A stream that is read in a loop and left is closed by Python in a task of its own: the run waits for it."""
    closed = asyncio.Event()

    async def stream() -> AsyncIterator[str]:
        try:
            yield "one "
            yield "two "
        finally:
            await asyncio.sleep(0.001)
            closed.set()

    async def agent(run: Run) -> AsyncIterator[str]:
        async for delta in stream():
            yield delta
            break

    async with cluster() as h:
        with capture_logs() as logs:
            device = await _started(h, agent)
            await device.wire.event("run.ended", runId="r1")
            async with asyncio.timeout(PATIENCE_SECONDS):
                await closed.wait()
        assert logs == []


async def test_an_agent_that_cancels_itself_fails() -> None:
    """Its run is neither cancelled, which nobody asked for, nor left open."""

    async def agent(run: Run) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with cluster() as h:
        device = await _started(h, agent)
        assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "failed"


async def test_an_agent_that_sweeps_all_tasks_ends_its_own_only() -> None:
    """On the server's own loop code of an agent cancels no task but those that it started."""

    async def agent(run: Run) -> None:
        child = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task(), this_test}:
            task.cancel()
        await asyncio.wait({child})
        assert child.cancelled()
        await run.text("swept")

    this_test = asyncio.current_task()  # made before there was anything to guard it
    uncontained = contain(asyncio.get_running_loop(), guarded=True)
    try:
        async with cluster() as h:
            h.nodes[0].agents = {"puppet": Agent("puppet", h.puppet), "sweeper": Agent("sweeper", agent)}
            h.nodes[0].traits = {name: agent.traits for name, agent in h.nodes[0].agents.items()}
            device = await h.device()
            await device.send("send", id="r1", text="go")
            call = await h.puppet.call()
            await device.send("send", id="r2", text="go", agent="sweeper", whenBusy="alongside")
            assert (await device.wire.event("run.ended", runId="r2"))["reason"] == "completed"
            call.say("still here")
            call.end()
            assert (await device.wire.event("run.ended", runId="r1"))["reason"] == "completed"
            assert device.text("r1") == "still here"
            assert not (await h.session()).failed
    finally:
        uncontained()


def _own_factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """A factory that an application had before."""
    task = asyncio.Task(coro, loop=loop, **options)
    task.set_name(f"made by its own factory: {task.get_name()}")
    return task


@pytest.mark.parametrize("factory", [None, _own_factory])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_tasks_are_made_as_without_it(new_loop: Callable[[], asyncio.AbstractEventLoop], factory: Any) -> None:
    """Names, contexts, results and errors are those of any task, on either loop and over any factory."""
    variable = contextvars.ContextVar("variable", default="outside")
    exits: list[BaseException] = []

    async def child() -> str:
        return variable.get()

    async def agent() -> list[str]:
        context = contextvars.Context()
        context.run(variable.set, "inside")
        named = asyncio.create_task(child(), name="a name", context=context)
        assert named.get_name().endswith("a name")
        assert "child" in repr(named)
        frames = named.get_stack()
        assert frames[0].f_code is child.__code__
        deeper = contextvars.Context()

        async def grandchild() -> None:
            await asyncio.create_task(_raise(SystemExit(1)))

        with pytest.raises(RuntimeError) as raised:
            await asyncio.create_task(grandchild(), context=deeper)
        assert isinstance(raised.value.__cause__, (RuntimeError, SystemExit))
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_task(_raise(ZeroDivisionError()))
        unstarted = asyncio.create_task(child())
        unstarted.cancel()
        await asyncio.wait({unstarted})
        return [await named, *await asyncio.gather(child(), child())]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        uncontained = contain(loop)
        again = contain(loop)
        own = asyncio.create_task(child())
        assert type(own.get_coro()).__name__ == "coroutine"
        tasks = AgentTasks(exits.append, run="r")
        assert await tasks.start(agent(), name="agent") == ["inside", "outside", "outside"]
        await tasks.ended()
        uncontained()
        assert loop.get_task_factory() is not factory
        again()
        assert loop.get_task_factory() is factory
        await own

    loop = new_loop()
    loop.set_task_factory(factory)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert [type(error) for error in exits] == [SystemExit]
