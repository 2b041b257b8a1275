"""The shared vectors that a client reads: where it is after what a server said, when it comes back, and how soon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast.client.backoff import backoff
from holdfast.protocol import may_reconnect
from tests.client.server_messages import lost, make, sent, snapshot, tell, welcome

VECTORS: Final = Path(__file__).parents[2] / "protocol" / "vectors"


def cases(name: str) -> list[Any]:
    """The cases of one file as parameters named by their descriptions."""
    read: list[Any] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    assert read, f"{name}.json has cases"
    return [pytest.param(case, id=case["description"]) for case in read]


@pytest.mark.parametrize("case", cases("cursor"))
def test_cursor(case: Any) -> None:
    """The client's position follows the server's messages, and contact is lost at the message that the case names."""
    position, messages = case["in"]["position"], case["in"]["messages"]
    connection = make()
    connection.opening()
    connection.opened(0.0, None)
    if position is not None:
        seq, epoch = position["seq"], position["epoch"]
        tell(connection, welcome(epoch=epoch), snapshot(seq, epoch), {"type": "caughtUp", "seq": seq, "at": seq})
        if messages[0]["type"] == "welcome":
            connection.closed(0.0, 1006)
            connection.opening()
            connection.opened(0.0, None)
    lost_at = None
    for number, message in enumerate(messages):
        tell(connection, {**welcome(), **message} if message["type"] == "welcome" else message)
        if lost(connection) is not None:
            lost_at = number
            break
    assert lost_at == case["out"]["lostAt"]
    if lost_at is not None:
        connection.closed(0.0, 1006)
        connection.opening()
        connection.opened(0.0, None)
        cursor = sent(connection)[-1].get("cursor")
        told = None if cursor is None else {"epoch": cursor["epoch"], "seq": cursor["seq"]}
        assert told == case["out"]["position"]
    else:
        assert connection.view.position == case["out"]["position"]


@pytest.mark.parametrize("case", cases("close_codes"))
def test_close_codes(case: Any) -> None:
    """A close code alone tells whether to come back."""
    connection = make()
    connection.opening()
    connection.opened(0.0, None)
    connection.closed(0.0, case["in"]["code"])
    assert (connection.reconnect_at is not None) == case["out"]["reconnect"] == may_reconnect(case["in"]["code"])


@pytest.mark.parametrize("case", cases("backoff"))
def test_backoff(case: Any) -> None:
    """Waits are jittered over a bound that grows to a limit, and are no shorter than the server's hint."""
    given = case["in"]
    waited = backoff(given["attempt"], lambda: given["random"], hint_ms=given["reconnectAfterMs"] or None)
    assert waited * 1000 == pytest.approx(case["out"]["waitMs"])
