"""The tables that the benchmarks print: a number, the floor it is compared with, and what was promised of it."""

from __future__ import annotations

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

    @property
    def missed(self) -> bool:
        """Whether the number is beyond its limit."""
        if self.limit is None:
            return False
        return (self.value if self.floor is None else self.value / self.floor) > self.limit

    def cells(self) -> tuple[str, ...]:
        """As printed."""
        ratio = "" if self.floor is None else f"{self.value / self.floor:.2f} x"
        limit = "" if self.limit is None else f"{self.limit:g}" + (f" {self.unit}" if self.floor is None else " x")
        verdict = "" if self.limit is None else "MISSED" if self.missed else "ok"
        floor = "" if self.floor is None else f"{self.floor:.2f}"
        return (self.name, f"{self.value:.2f} {self.unit}", floor, ratio, limit, verdict, self.note)


def show(title: str, rows: list[Row]) -> None:
    """Prints a table."""
    header = ("", "measured", "floor", "ratio", "at most", "", "")
    lines = [header, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        first, *rest = (
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  " + "  ".join([first, *rest]).rstrip(), flush=True)
