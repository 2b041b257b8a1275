"""What CONTRIBUTING.md names is there, and its table of modules and tests leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROW: Final = re.compile(r"^\| (.+) \| ((?:`[\w./-]+`(?:, )?)+) \|$", re.M)
SOURCES: Final = ("protocol/holdfast", "server/holdfast", "client/python/holdfast")


def modules() -> list[str]:
    """Every module, by its name below the namespace; what packages export is tested with what they hold."""
    return [
        ".".join(path.relative_to(ROOT / source).with_suffix("").parts)
        for source in SOURCES
        for path in sorted((ROOT / source).rglob("*.py"))
        if path.name != "__init__.py"
    ]


def table() -> list[tuple[list[str], list[str]]]:
    """The rows of the table: modules, and where their tests are. Rows of other things have no modules."""
    section = TEXT.partition("## Where each module is tested\n")[2].partition("\n## ")[0]
    rows = [
        (re.findall(r"`([a-z]\w*(?:\.\w+)+)`", left), re.findall(r"`([^`]+)`", right))
        for left, right in ROW.findall(section)
    ]
    assert rows, "there is a table"
    return rows


def is_named(path: Path, end: str) -> bool:
    """Whether the end of a path, or a directory, names this file."""
    place = f"/{path.relative_to(ROOT).as_posix()}"
    return f"/{end}" in place if end.endswith("/") else place.endswith(f"/{end}")


def test_every_module_has_one_row() -> None:
    """A new module gets a row with its tests; one that is gone or renamed takes its row with it."""
    listed = [module for left, _ in table() for module in left]
    assert len(set(listed)) == len(listed), f"twice: {sorted({name for name in listed if listed.count(name) > 1})}"
    assert not set(modules()) - set(listed), f"no row in CONTRIBUTING.md: {sorted(set(modules()) - set(listed))}"
    assert not set(listed) - set(modules()), (
        f"gone, and still in CONTRIBUTING.md: {sorted(set(listed) - set(modules()))}"
    )


def test_every_test_is_named() -> None:
    """Each test file stands behind some row, and each row names files that are there."""
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    ends = [end for _, right in table() for end in right]
    nowhere = [end for end in ends if not any(is_named(path, end) for path in tests)]
    assert not nowhere, f"CONTRIBUTING.md names tests that are not there: {nowhere}"
    unnamed = [str(path.relative_to(ROOT)) for path in tests if not any(is_named(path, end) for end in ends)]
    assert not unnamed, f"no row in CONTRIBUTING.md: {unnamed}"


def test_files_of_the_recipes_are_there() -> None:
    """Every file that the recipes name exists."""
    recipes = TEXT.partition("## Recipes\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w./-]+\.(?:py|js|json|md|toml))`", recipes))
    assert named, "recipes name files"
    rooms = ("protocol", "server", "client/python", "client/browser/holdfast", "client/browser/page", "tests", "docs")
    kept = [*ROOT.glob("*.*"), ROOT / "client/browser/README.md"]
    kept += [path for room in rooms for path in (ROOT / room).rglob("*.*")]
    nowhere = sorted(end for end in named if not any(is_named(path, end) for path in kept))
    assert not nowhere, f"CONTRIBUTING.md names files that are not there: {nowhere}"
