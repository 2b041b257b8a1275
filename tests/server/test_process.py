"""A process that runs out of file descriptors says so."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator

import pytest

from holdfast.server import process
from tests.support.served import served


@pytest.fixture
def few_descriptors() -> Iterator[list[socket.socket]]:
    """This process may open a dozen more at most; what is put into the list is closed at the end."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[socket.socket] = []
    with socket.socket() as probe:
        free = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 12, before[1]))
    try:
        yield opened
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in opened:
            each.close()


def test_few_and_none_are_both_told(few_descriptors: list[socket.socket]) -> None:
    """From the moment when eight are not left until none is."""
    told: list[bool] = []
    for _ in range(30):
        told.append(process.short_of_descriptors())
        try:
            few_descriptors.append(socket.socket())
        except OSError:
            break
    could_be_opened = len(few_descriptors)
    assert told == [could_be_opened - opened < 8 for opened in range(could_be_opened + 1)]
    assert {False, True} == set(told)
    few_descriptors.pop().close()
    assert process.short_of_descriptors()


async def test_a_crowded_server_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it has no descriptors to spare `/readyz` says so, and the log once a minute; then all is well again."""
    short = True
    monkeypatch.setattr(process, "short_of_descriptors", lambda: short)
    async with served() as server:
        for _ in range(62):
            server.clock.advance(1_000)
        assert (await server.get("/readyz"))[0] == 503
        assert (await server.get("/healthz"))[0] == 200
        assert capsys.readouterr().out.count("file descriptors run short") == 2
        short = False
        server.clock.advance(1_000)
        assert (await server.get("/readyz"))[0] == 200
        short = True
        server.clock.advance(1_000)
        assert (await server.get("/readyz"))[0] == 503
        assert "run short" not in capsys.readouterr().out
