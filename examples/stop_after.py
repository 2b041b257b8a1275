"""A script that stops a run as soon as it has read enough: `./dev python examples/stop_after.py 40`."""

import os
import sys

from holdfast.client.sync import connect

URL = os.environ.get("HOLDFAST_URL", "ws://127.0.0.1:8787")


def main(enough: int) -> None:
    """Asks, reads `enough` characters, stops, and shows what was kept: what was read, and no more."""
    with connect(URL, session="example") as session:
        run = session.send("Please count to 100.")
        read = ""
        for delta in run:
            read += delta
            if len(read) >= enough:
                outcome = run.cancel()
                print(f"{outcome.outcome}: {read!r}")
                break
        result = run.wait()
        print(f"kept: {result.text!r}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
