"""How all servers of a benchmark produce: the same deadlines, the same timers, the same text.

A chunk's text is a mark and the time of its making, in hexadecimal ns of the monotonic clock, which all processes of a
machine share: whoever reads the stream counts the marks, and knows how long each was on its way. A mark is two bytes,
because any single one may be part of a number in msgpack.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

MARK: Final = b"@~"
TEXT_LENGTH: Final = 17
TEXT: Final = "@~0123456789abcde"
"""One that tells no time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """One run's share of a load: `chunks` of them, `period` seconds apart, shifted against other runs by `phase`."""

    period: float
    chunks: int
    phase: float = 0.0

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """From what `plain` gave."""
        return cls(values["period"], values["chunks"], values["phase"])

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    async def texts(self) -> AsyncGenerator[str]:
        """The chunks, by absolute deadlines: a late timer does not slow the pace."""
        loop = asyncio.get_running_loop()
        due = (loop.time() // self.period + 1) * self.period + self.phase
        for _ in range(self.chunks):
            due += self.period
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield f"@~{time.monotonic_ns():015x}"
