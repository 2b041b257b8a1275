"""./dev, as far as it can be run without making an environment."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("place", [".", "examples", "docs/..", "/", "a b"])
def test_it_is_called_as_it_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    """What the hints of its programs begin with runs it from the caller's directory, wherever that is."""
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / place if place == "a b" else ROOT / place)
    called = runpy.run_path(str(ROOT / "dev"))["called"]()
    said = subprocess.run(f"{called} help", shell=True, capture_output=True, text=True, check=True).stdout
    assert "./dev serve" in said
    assert (called == "./dev") == (Path(os.curdir).resolve() == ROOT)
