"""The Python client in the tests' hands: waiting for what it shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from holdfast.client import Run, RunResult, Session
from tests.support.program import SECONDS


def counted(last: int) -> str:
    """What the demo agent says when it is asked to count to `last`."""
    return f"Counting: {' '.join(str(number) for number in range(1, last + 1))}."


async def until(session: Session, shown: Callable[[], bool]) -> None:
    """Returns when the session shows it."""
    async with asyncio.timeout(SECONDS):
        while not shown():
            await session.changed()


async def ended(run: Run) -> RunResult:
    """How the run ended, when it has."""
    async with asyncio.timeout(SECONDS):
        return await run.wait()


async def read(texts: AsyncIterator[str], *, up_to: str | None = None) -> str:
    """Reads on until `up_to` has come, or to the end of the run."""
    said = ""
    async with asyncio.timeout(SECONDS):
        async for text in texts:
            said += text
            if up_to is not None and up_to in said:
                break
    return said
