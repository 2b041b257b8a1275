"""An agent of your own, in its smallest form: `holdfast serve examples.assistant:server`.

It can be stopped and steered like any other: nothing has to be done for it here.
"""

import asyncio
from collections.abc import AsyncIterator

from holdfast.server import Run, Server
from holdfast.server.agents.prompt import chat_completions

server = Server()


@server.agent("assistant")
async def assistant(run: Run) -> AsyncIterator[str]:
    """Says back, word by word, what it was told last; a steer is told like any other message."""
    told = [message for message in chat_completions(run.messages) if message["role"] == "user"][-1]
    yield "You said: "
    for word in str(told["content"]).split():
        yield f"{word} "
        await asyncio.sleep(0.1)
