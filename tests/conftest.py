"""What all tests share: how hard Hypothesis searches, that none is skipped unnoticed, and that none leaves anything."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, Generator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is slow at times, which is no property of the code under test.
_TURNS_TO_END = 1_000
"""Turns of the loop in which what a test has ended has to be gone."""
_common = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
_schedules = os.environ.get("HOLDFAST_SCHEDULES")

# The same examples each time, so that a change is never refused for a schedule that nobody has seen before; new ones
# are searched for by hand.
settings.register_profile("ci", _common, max_examples=300, derandomize=True)
settings.register_profile("deep", _common, max_examples=int(_schedules or 10_000))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("deep" if _schedules else "ci"))


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skipped test proves nothing: it fails, with the reason it gave. An expected failure stays one."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"no test may be skipped here ({reason})"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a test that skips into one that fails."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module that skips itself into one that fails."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> None:
    """Has every asynchronous test leave nothing behind. It comes before all other fixtures, and so looks after them."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)) and not hasattr(request.node.obj, "hypothesis"):
        request.getfixturevalue("loop_is_left_empty")


@pytest.fixture
async def loop_is_left_empty() -> AsyncGenerator[None]:
    """Fails where a task or an open connection is left of what came after it."""
    loop = asyncio.get_running_loop()
    watched = _watched(loop).keys()
    yield
    tasks: list[str] = []
    connections: list[str] = []
    for _ in range(_TURNS_TO_END):
        tasks, connections = _tasks(), [call for fd, call in _watched(loop).items() if fd not in watched]
        if not tasks and not connections:
            return
        await asyncio.sleep(0)
    pytest.fail(f"left behind: tasks {tasks}, connections {connections}")


def _tasks() -> list[str]:
    mine = asyncio.current_task()
    return [str(task.get_coro()) for task in asyncio.all_tasks() if task is not mine]


def _watched(loop: asyncio.AbstractEventLoop) -> dict[int, str]:
    """The descriptors that the loop reads from or writes to, and what it calls for them."""
    selector = cast("Any", loop)._selector  # loops offer no list of their connections
    return {key.fd: str(key.data) for key in selector.get_map().values()}
