"""A script that stops a run as soon as it has read enough: `python examples/stop_after.py 40`."""

import asyncio
import sys

from holdfast.client import connect


async def main(enough: int) -> None:
    """Asks, reads `enough` characters, stops, and shows what was kept: what was read, and no more."""
    async with connect("ws://127.0.0.1:8787", session="example") as session:
        run = await session.send("Count to one hundred, slowly.")
        read = ""
        async for delta in run:
            read += delta
            if len(read) >= enough:
                outcome = await run.cancel()
                print(f"{outcome.outcome}: {read!r}")
                break
        result = await run.wait()
        print(f"kept: {result.text!r}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
