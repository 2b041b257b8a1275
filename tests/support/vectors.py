"""What `protocol/` says: the text, the shared vectors, and the table of ends that tests take their lists from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, TypeAlias

PROTOCOL: Final = Path(__file__).parents[2] / "protocol"
Case: TypeAlias = dict[str, Any]
VECTORS: Final[dict[str, list[Case]]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((PROTOCOL / "vectors").glob("*.json"))
}
TEXT: Final = (PROTOCOL / "PROTOCOL.md").read_text(encoding="utf-8")

ENDS: Final[dict[str, Case]] = {
    case["in"]["reason"]: case["out"] for case in VECTORS["ends"] if case["rule"] != "GROW.5"
}
"""What follows from an end, by reason."""


def ends_of(state: str) -> list[str]:
    """The reasons for which a run of this state can end."""
    return [reason for reason, end in ENDS.items() if state in end["of"]]


def text_table(after: str) -> list[list[str]]:
    """The rows of the first table behind a place in the text, without its header; backticks are left out."""
    place = TEXT.index(after)
    table = re.search(r"(?:^\|.+\|\n)+", TEXT[place:], flags=re.MULTILINE)
    assert table is not None
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in table[0].splitlines()]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]
