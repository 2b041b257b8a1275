"""Frames built by hand are those of the library, and limits count as they say."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from holdfast.server.gateway.frames import frame
from holdfast.server.gateway.rates import Strikes, TokenBucket


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 1_023, 1_024, 65_535, 65_536, 200_000])
def test_frames_are_those_of_the_library(length: int, text: bool) -> None:
    """For every form of the length the bytes are what the library would send."""
    payload = b"x" * length
    expected = Frame(Opcode.TEXT if text else Opcode.BINARY, payload).serialize(mask=False, extensions=[])
    assert frame(payload, text=text) == expected


def test_a_bucket_fills_again() -> None:
    """The burst goes through at once, then one for each interval, and never more than the burst after a pause."""
    bucket = TokenBucket(2.0, 3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(0.5) == 0.0
    assert bucket.take(0.5) == 0.5
    assert [bucket.take(1_000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_strikes_count_within_their_time() -> None:
    """The limit is reached by as many within the time, and not by as many over a longer one."""
    strikes = Strikes(3, seconds=60.0)
    assert [strikes.strike(at) for at in (0.0, 30.0, 61.0)] == [False, False, False]
    assert strikes.strike(62.0)
