"""An agent of your own, in its smallest form: `holdfast serve examples.assistant:server`.

It can be stopped and steered like any other: nothing has to be done for it here.
"""

import asyncio
from collections.abc import AsyncIterator

from holdfast.server import Run, Server

server = Server()


@server.agent("assistant")
async def assistant(run: Run) -> AsyncIterator[str]:
    """Says back, word by word, what it was told last; a steer is a message like any other."""
    last = [message for message in run.messages if message["role"] == "user"][-1]
    said = " ".join(str(part.get("text", "")) for part in last["parts"])
    yield "You said: "
    for word in said.split():
        yield f"{word} "
        await asyncio.sleep(0.1)
