"""./dev, as far as it can be run without making an environment."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dev() -> dict[str, Any]:
    """The names of ./dev, which does nothing when it is not run."""
    return runpy.run_path(str(ROOT / "dev"))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a shell script on a PATH where nothing else is."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("HOLDFAST_CHROMIUM", raising=False)

    def program(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return program


@pytest.mark.parametrize("place", [".", "examples", "docs/..", "/", "a b"])
def test_it_is_called_as_it_can_be_typed(
    dev: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    """What the hints of its programs begin with runs it from the caller's directory, wherever that is."""
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / place if place == "a b" else ROOT / place)
    called = dev["called"]()
    said = subprocess.run(f"{called} help", shell=True, capture_output=True, text=True, check=True).stdout
    assert "./dev serve" in said
    assert (called == "./dev") == (Path(os.curdir).resolve() == ROOT)


@pytest.mark.parametrize("version", [None, "v18.20.4"])
def test_node_that_is_missing_or_old_is_told_with_the_remedy(
    dev: dict[str, Any], install: Callable[[str, str], None], version: str | None
) -> None:
    """Who has no fitting Node reads which one is needed, what was found, and what installs it."""
    if version:
        install("node", f"echo {version}")
        install("npm", "exit 1")
    with pytest.raises(SystemExit, match=rf"Node 20.*found: {version or 'none'}.*apt install nodejs npm"):
        dev["ensure_node"]()


def test_chromium_is_taken_where_it_is(
    dev: dict[str, Any], install: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser on PATH will do, and the variable goes before it."""
    install("apt-get", "exit 1")
    install("google-chrome", "exit 1")
    dev["ensure_chromium"]()
    assert dev["find_chromium"]().endswith("/google-chrome")
    monkeypatch.setenv("HOLDFAST_CHROMIUM", "/opt/mine")
    assert dev["find_chromium"]() == "/opt/mine"


@pytest.mark.parametrize("user", [0, 1000])
def test_chromium_is_installed_where_that_needs_no_question(
    dev: dict[str, Any],
    install: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    user: int,
) -> None:
    """Root installs it directly, and others through a sudo that asks no password."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    chromium = tmp_path / "bin" / "chromium"
    # Only the installation, and only with the rights it needs, makes the browser appear.
    install("apt-get", f'[ "$1" = update ] || {{ : > {chromium}; /bin/chmod +x {chromium}; }}')
    if user:
        install("sudo", 'shift; case "$1" in true) exit 0;; *) exec "$@";; esac')
    dev["ensure_chromium"]()
    assert dev["find_chromium"]() == str(chromium)


def test_chromium_that_cannot_be_installed_is_told_with_the_remedy(
    dev: dict[str, Any], install: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sudo would ask for a password nothing is tried, and the command is named."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    install("sudo", "exit 1")
    install("apt-get", "echo must not be called; exit 1")
    with pytest.raises(SystemExit, match="sudo apt install chromium"):
        dev["ensure_chromium"]()


def test_the_lock_file_names_no_place_to_load_from() -> None:
    """Every machine takes the packages from the registry it is set up for."""
    lock = json.loads((ROOT / "client" / "browser" / "package-lock.json").read_text())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]


def test_a_library_over_its_limit_is_refused(
    dev: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The size is printed, and one byte more than is allowed fails the check."""
    check_size = dev["check_size"]
    check_size()
    size = int(capfd.readouterr().out.split()[0].replace(",", ""))
    assert size > 1_000
    for limit, code in [(size, 0), (size - 1, 1)]:
        monkeypatch.setitem(check_size.__globals__, "SIZE_LIMIT", limit)
        assert check_size() == code


def test_benchmarks_in_javascript_are_found(
    dev: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A name is a benchmark in either language, run by what runs that language; what begins with _ is none."""
    ran: list[tuple[str | Path, ...]] = []

    def call(*command: str | Path) -> int:
        ran.append(command)
        return 0

    (tmp_path / "benchmarks").mkdir()
    for name in ("fold.js", "latency.py", "_pace.py", "package.json", "README.md"):
        (tmp_path / "benchmarks" / name).touch()
    bench = dev["bench"]
    monkeypatch.setitem(bench.__globals__, "ROOT", tmp_path)
    monkeypatch.setitem(bench.__globals__, "call", call)
    assert bench() == 0
    assert [command[0] for command in ran] == ["node", dev["PYTHON"]]
    with pytest.raises(SystemExit, match="The benchmarks are: fold, latency"):
        bench("pace")
