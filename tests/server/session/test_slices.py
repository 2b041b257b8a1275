"""Long work is done a little at a time, in turns with everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from time import thread_time

import pytest

from holdfast.server.session.slices import SLICE_SECONDS, Slices


def busy(milliseconds: int) -> Generator[None, None, str]:
    """Steps of a tenth of a millisecond."""
    for _ in range(10 * milliseconds):
        step = thread_time() + 0.0001
        while thread_time() < step:
            """It works."""
        yield
    return "done"


async def test_however_much_there_is_one_slice_is_done_between_two_turns() -> None:
    """Ten long pieces at once, or hundreds of short ones, hold the loop no longer than one of them does."""
    slices = Slices()
    works = [asyncio.create_task(slices.run(busy(length))) for length in [50] * 10 + [1] * 300]
    longest, last, turns = 0.0, thread_time(), 0
    while not all(work.done() for work in works) and turns < 100_000:
        await asyncio.sleep(0)
        longest, last, turns = max(longest, thread_time() - last), thread_time(), turns + 1
    assert [await work for work in works] == ["done"] * 310
    assert turns >= 100
    assert longest < 4 * SLICE_SECONDS


async def test_what_a_step_raises_is_raised_and_holds_up_nobody() -> None:
    """Its error is the caller's; the next one has its turn."""

    def failing() -> Generator[None, None, None]:
        yield
        raise ValueError("broken")

    slices = Slices()
    with pytest.raises(ValueError, match="broken"):
        await slices.run(failing())
    assert await slices.run(busy(0)) == "done"
