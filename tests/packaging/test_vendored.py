"""What the page ships of others' code is theirs, unchanged, in the version that the tools are pinned to."""

from __future__ import annotations

from pathlib import Path

import pytest

BROWSER = Path(__file__).resolve().parents[2] / "client" / "browser"
VENDORED = [path for path in sorted((BROWSER / "page" / "vendor").rglob("*")) if path.is_file()]


@pytest.mark.parametrize("path", VENDORED, ids=lambda path: path.name)
def test_vendored_files_are_the_packages_own(path: Path) -> None:
    """Each file is, byte for byte, the one of its npm package, and so is reviewed where everybody reviews it."""
    package = BROWSER / "node_modules" / path.parent.name
    assert package.is_dir(), "run ./dev test-js once: it installs what these files are compared with"
    originals = {original.name.lower(): original for original in package.iterdir()}
    assert path.read_bytes() == originals[path.name.lower()].read_bytes()


def test_each_vendored_package_comes_with_its_licence() -> None:
    """Its terms travel with it."""
    assert VENDORED
    assert {path.parent for path in VENDORED} == {path.parent for path in VENDORED if path.name == "LICENSE"}
