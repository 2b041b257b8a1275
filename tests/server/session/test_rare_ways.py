"""What is seen only when something goes a rare way: two causes at once, or somebody who has gone meanwhile."""

from __future__ import annotations

import asyncio

from tests.server.doubles import settled
from tests.server.session.house import house


async def test_one_catch_up_at_a_time_brings_a_reader_up() -> None:
    """A reader that is behind already is given no second one, whatever else happens to its session."""
    async with house() as h:
        device = await h.device()
        device.wire.congested = True
        for _ in range(3):
            device.session.delivery.reset_all(new_epoch=False)
            await settled()
        going_on = [task for task in asyncio.all_tasks() if task.get_name() == "catch up c-d1"]
        device.wire.flow()
        assert len(going_on) == 1
