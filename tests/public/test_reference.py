"""The page of public names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.public.surface import PUBLIC, exported

PAGE: Final = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def test_the_page_lists_the_public_names() -> None:
    """Each public package has its section, and the names there are those of `__all__`, once each."""
    _, *sections = re.split(r"^## ", PAGE, flags=re.M)
    listed: dict[str, list[str]] = {}
    for section in sections:
        package = re.match(r"`(holdfast[\w.]*)`", section)
        if package is not None:
            listed[package[1]] = sorted(re.findall(r"`(\w+)`", section.partition("\n")[2]))
    assert listed == {package: sorted(exported(package)) for package in PUBLIC}
