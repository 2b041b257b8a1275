"""Ten thousand chunks: the page stays usable, and a chunk costs the same however long the message has become."""

from __future__ import annotations

import json
from typing import Any, Final

from playwright.async_api import Browser, Locator

from tests.browser.conftest import Devices
from tests.browser.device import Device
from tests.support.program import Serve

CHUNKS: Final = 10_000
LONG_TASK_MS: Final = 200
GROWTH: Final = 3.0
"""How much dearer a chunk may look at the end: frames hold more or less of them on a busy machine."""
_WATCH: Final = """
() => {
  window.chunks = 0;
  window.holdfast.session.subscribe((change) => {
    window.chunks += change.events.filter((event) => event.type === "run.chunk").length;
  });
}
"""


def tasks_ms(trace: bytes) -> list[float]:
    """How long each task of a page's main thread took, of its own time: on a busy machine a task of a millisecond may
    take a second by the clock, and a `PerformanceObserver` would call it long.
    """
    events: list[dict[str, Any]] = json.loads(trace)["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return [
        event.get("tdur", 0) / 1000
        for event in events
        if event["name"] == "ThreadControllerImpl::RunTask" and (event["pid"], event["tid"]) in threads
    ]


async def seconds(device: Device) -> float:
    """The time that the page's main thread has spent in tasks: its own time, which a busy machine does not stretch."""
    metrics = (await device.devtools("Performance.getMetrics"))["metrics"]
    return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


async def middle(locator: Locator) -> tuple[float, float]:
    """Where to point at it."""
    box = await locator.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


async def test_ten_thousand_chunks(browser: Browser, stage: Serve, devices: Devices, session: str) -> None:
    """While they arrive the conversation can be scrolled, and then stopped, and no task of the page takes longer than
    200 ms; what a chunk costs does not grow with the length of the message.
    """
    ana = await devices.open(stage, session)
    await ana.devtools("Performance.enable", timeDomain="threadTicks")
    await ana.say("rush")
    log, stop = await middle(ana.conversation), await middle(ana.stop)
    await ana.page.mouse.move(*log)
    # From here on nothing is looked for by its role: that is work of the page too, and more than all of its own.
    await ana.page.evaluate(_WATCH)
    await browser.start_tracing(categories=["toplevel"])
    spent: list[tuple[int, float]] = []
    for tenth in range(1, 11):
        await ana.page.wait_for_function(f"() => window.chunks >= {CHUNKS * tenth // 10}")
        spent.append((await ana.page.evaluate("window.chunks"), await seconds(ana)))
        # Up on odd tenths, and down again, to where it follows the message.
        await ana.page.mouse.wheel(0, -1500 if tenth % 2 else 100_000)
    await ana.page.mouse.click(*stop)
    await ana.until("view.runs[0].status === 'ended'")
    tasks = tasks_ms(await browser.stop_tracing())
    assert len(tasks) > 1000, "the trace tells of the page's tasks"
    assert max(tasks) <= LONG_TASK_MS, f"long tasks, in ms: {sorted(tasks)[-5:]}"
    assert (await ana.acked("cancel"))["outcome"] == "cancelled"
    await ana.stopped()

    def cost(first: int, last: int) -> float:
        (chunks, before), (later_chunks, after) = spent[first], spent[last]
        return (after - before) / (later_chunks - chunks)

    early, late = cost(0, 3), cost(6, 9)
    assert late <= early * GROWTH, f"a chunk costs {early * 1e6:.0f} µs at first and {late * 1e6:.0f} µs at last"
