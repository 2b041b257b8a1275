"""The tables that the benchmarks print: a number, the floor it is compared with, and what was promised of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One number. `limit` is what it may be at most; None for a number that stands there to be known."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    floor: float | None = None
    """In the same unit; the limit is then one of the ratio to it."""
    note: str = ""
    ratios: Sequence[float] = ()
    """To the floor, one of each launch: their median counts then, and the least and the greatest are told."""

    @property
    def ratio(self) -> float | None:
        """To the floor."""
        if self.ratios:
            return statistics.median(self.ratios)
        return None if self.floor is None else self.value / self.floor

    @property
    def missed(self) -> bool:
        """Whether the number is beyond its limit."""
        if self.limit is None:
            return False
        return (self.value if self.ratio is None else self.ratio) > self.limit

    def cells(self) -> tuple[str, ...]:
        """As printed."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} x"
        spread = f"{min(self.ratios):.2f}-{max(self.ratios):.2f}" if len(self.ratios) > 1 else ""
        limit = "" if self.limit is None else f"{self.limit:g}" + (f" {self.unit}" if self.floor is None else " x")
        verdict = "" if self.limit is None else "MISSED" if self.missed else "ok"
        floor = "" if self.floor is None else f"{self.floor:.2f}"
        return (self.name, f"{self.value:.2f} {self.unit}", floor, ratio, spread, limit, verdict, self.note)


def compared(name: str, ours: Sequence[float], floors: Sequence[float], unit: str, limit: float | None = None) -> Row:
    """A row of what was measured once in each launch, beside what the floor was in the same launch."""
    ratios = [value / floor for value, floor in zip(ours, floors, strict=True)]
    return Row(name, statistics.median(ours), unit, limit, statistics.median(floors), ratios=ratios)


def show(title: str, rows: list[Row]) -> None:
    """Prints a table."""
    header = ("", "measured", "floor", "ratio", "range", "at most", "", "")
    lines = [header, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        first, *rest = (
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  " + "  ".join([first, *rest]).rstrip(), flush=True)
