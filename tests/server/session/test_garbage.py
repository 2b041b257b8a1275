"""What has ended is let go at once: a server puts a full garbage collection off for a very long time."""

from __future__ import annotations

import asyncio
import gc
import weakref

from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from tests.support.cluster import cluster
from tests.support.doubles import settled


async def test_a_worker_goes_with_its_run() -> None:
    """No cycle keeps it, nor what it had of the conversation; also where its agent has made tasks and timers."""
    workers: list[weakref.ref[object]] = []

    async def agent(run: Run) -> None:
        workers.append(weakref.ref(run._port))  # pyright: ignore[reportPrivateUsage]
        asyncio.get_running_loop().call_later(3600, settled).cancel()
        await asyncio.create_task(asyncio.sleep(0))
        await run.text("so much")
        if run.messages[0]["parts"][0]["text"] == "stop":
            await asyncio.sleep(3600)

    async with cluster() as h:
        await h.start({"agent": Agent("agent", agent)})
        device = await h.device(number=1)
        gc.collect()
        gc.disable()
        try:
            await device.send("send", id="r1", text="go")
            await device.wire.event("run.ended", runId="r1")
            await settled()
            await device.send("send", id="r2", text="stop")
            await device.wire.event("run.chunk", runId="r2")
            await device.send("cancel", id="k1", runId="r2")
            await device.wire.event("run.settled", runId="r2")
            await settled()
            assert [worker() for worker in workers] == [None, None]
        finally:
            gc.enable()
