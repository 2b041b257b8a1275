"""What the end-to-end tests share: a server that is started once, names of their own, and a limit to every test."""

from __future__ import annotations

import re
import signal
from collections.abc import Generator
from types import FrameType

import pytest

from tests.support.program import Serve

_SECONDS = 90


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    """One server for all tests that do it no harm: SQLite, the demo agent, a hundred words a second."""
    with Serve("--demo-words-per-second", "100", cwd=tmp_path_factory.mktemp("demo")) as server:
        yield server


@pytest.fixture
def session(request: pytest.FixtureRequest) -> str:
    """A session that no other test uses."""
    return re.sub(r"[^A-Za-z0-9._:~-]", "-", request.node.name)


@pytest.fixture(autouse=True)
def bounded() -> Generator[None]:
    """Ends a test that waits for something that never comes, where it stands."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"this test took longer than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
