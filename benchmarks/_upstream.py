"""The model server of a benchmark: it streams at a pace, and says when each request's connection closed.

For every request it prints one line, `closed NAME NANOSECONDS CHUNKS`: the last word of the user's last message, the
time on the monotonic clock, which all processes of a machine share, and how many chunks it would bill.
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop

from benchmarks._processes import ready
from tests.support.openai_endpoint import Endpoint, Request, ScriptedResponse
from tests.support.openai_streams import Text


class Upstream(Endpoint):
    """The tests' endpoint, which tells of each request's end."""

    def __init__(self, *, pace: float, chunks: int, text: str, tells: bool) -> None:
        super().__init__()
        self.keeps_requests = False
        self._answer = ScriptedResponse(*(Text(text) for _ in range(chunks)), pace=pace)
        self._tells = tells
        self._watching: set[asyncio.Task[None]] = set()

    def accept(self, request: Request) -> ScriptedResponse:
        """The one answer there is; its end is watched."""
        if self._tells:
            task = asyncio.create_task(self._tell(request))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)
        return self._answer

    async def _tell(self, request: Request) -> None:
        asked = [message["content"] for message in request.body["messages"] if message["role"] == "user"]
        name = asked[-1].split()[-1]
        await request.closed.wait()
        assert request.closed_at is not None
        print(f"closed {name} {round(request.closed_at * 1e9)} {request.billed}", flush=True)


async def serve(upstream: Upstream) -> None:
    """Serves until the process is ended."""
    async with upstream:
        ready(int(upstream.base_url.rpartition(":")[2].partition("/")[0]))
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pace", type=float, required=True)
    parser.add_argument("--chunks", type=int, required=True)
    parser.add_argument("--text", default="token ")
    parser.add_argument("--tells", action="store_true")
    given = parser.parse_args()
    uvloop.run(serve(Upstream(pace=given.pace, chunks=given.chunks, text=given.text, tells=given.tells)))
